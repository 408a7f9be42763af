"""The ends that a driver has yet to tell: each container once, however often its end was
noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from slotway.drivers.base import ContainerId

HOW_MAX = 1000


class Ends:
    """A queue with one reader, no longer than there are containers; and how the last ones ended."""

    def __init__(self) -> None:
        self._waiting: dict[ContainerId, None] = {}
        self._how: dict[ContainerId, str] = {}
        self._told = asyncio.Event()

    def tell(self, container: ContainerId) -> None:
        """Adds a proved end."""
        self._waiting[container] = None
        self._told.set()

    def explain(self, container: ContainerId, how: str) -> None:
        """Keeps how it ended, in one line for people."""
        self._how[container] = how
        if len(self._how) > HOW_MAX:
            del self._how[next(iter(self._how))]

    def how(self, container: ContainerId) -> str:
        """How it ended; empty if that is not known, or forgotten."""
        return self._how.get(container, "")

    async def read(self) -> AsyncIterator[ContainerId]:
        """Ends, for ever."""
        while True:
            while self._waiting:
                container = next(iter(self._waiting))
                del self._waiting[container]
                yield container
            self._told.clear()
            await self._told.wait()
