"""The ends that a driver has yet to tell: each container once, however often its end was
noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from slotway.drivers.base import ContainerId

ENDINGS_MAX = 1000
"""How containers ended is remembered of the newest only."""


class Ends:
    """A queue with one reader, no longer than there are containers."""

    def __init__(self) -> None:
        self._waiting: dict[ContainerId, None] = {}
        self._told = asyncio.Event()
        self._endings: dict[ContainerId, str] = {}

    def tell(self, container: ContainerId, ending: str = "") -> None:
        """Adds a proved end, and in words how it came about, if that is known."""
        if ending:
            self._endings[container] = ending
            if len(self._endings) > ENDINGS_MAX:
                del self._endings[next(iter(self._endings))]
        self._waiting[container] = None
        self._told.set()

    def ending(self, container: ContainerId) -> str:
        """How it ended; "" if that is not known."""
        return self._endings.get(container, "")

    async def read(self) -> AsyncIterator[ContainerId]:
        """Ends, for ever."""
        while True:
            while self._waiting:
                container = next(iter(self._waiting))
                del self._waiting[container]
                yield container
            self._told.clear()
            await self._told.wait()
