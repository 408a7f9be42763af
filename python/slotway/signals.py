"""Stopping a process in order: the first SIGTERM or SIGINT cancels it, a second one kills it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine

import structlog

log = structlog.get_logger(__name__)


async def until_signalled(running: Coroutine[object, object, None]) -> None:
    """Runs it until it ends or a signal comes, and waits until it has come to its end.

    Raises what it raises.
    """
    task = asyncio.ensure_future(running)
    signalled = False

    def stop() -> None:
        nonlocal signalled
        if signalled:
            os._exit(1)
        signalled = True
        log.info("stopping; signal once more to leave at once")
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await task
