"""Waiting for an etcd that is away: it is said once, at times again, and when it is over."""

from __future__ import annotations

import asyncio

import structlog

from slotway.etcd.errors import EtcdError, EtcdUnavailable, OutcomeUnknown

log = structlog.get_logger(__name__)

PAUSE_S = 0.25
REMIND_S = 10.0


class Patience:
    """For a loop that tries until etcd answers: `await wait(exc)` after a failure, `over()` after.

    `what` says what is tried, for people.
    """

    def __init__(self, what: str):
        self._what = what
        self._since = 0.0
        self._said = 0.0

    async def wait(self, exc: EtcdError) -> None:
        """Says that etcd is away, unless it was said lately, and pauses."""
        now = asyncio.get_running_loop().time()
        self._since = self._since or now
        if not self._said or now - self._said >= REMIND_S:
            self._said = now
            log.warning(
                "etcd is away; trying on",
                what=self._what,
                for_s=round(now - self._since),
                why=str(exc),
            )
        await asyncio.sleep(PAUSE_S)

    def over(self) -> None:
        """etcd answered."""
        if self._since:
            now = asyncio.get_running_loop().time()
            log.info("etcd answers again", what=self._what, after_s=round(now - self._since, 1))
        self._since = self._said = 0.0


LATER = (EtcdUnavailable, OutcomeUnknown)
"""What waiting helps against."""
