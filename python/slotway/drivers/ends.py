"""The ends that a driver has yet to tell: each container once, however often its end was
noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from slotway.drivers.base import ContainerId


class Ends:
    """A queue with one reader, no longer than there are containers."""

    def __init__(self) -> None:
        self._waiting: dict[ContainerId, None] = {}
        self._told = asyncio.Event()

    def tell(self, container: ContainerId) -> None:
        """Adds a proved end."""
        self._waiting[container] = None
        self._told.set()

    async def read(self) -> AsyncIterator[ContainerId]:
        """Ends, for ever."""
        while True:
            while self._waiting:
                container = next(iter(self._waiting))
                del self._waiting[container]
                yield container
            self._told.clear()
            await self._told.wait()
