"""A whole Router in the bench's own process, which notes when its slots come."""

import asyncio
import time
from typing import Any

from slotway._slotcore import DataPlane
from slotway.config import RouterConfig
from slotway.router.server import Router


class NotingPlane:
    """The data plane, with a note of each action's first slot."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self.shares: dict[str, int] = {}
        """By action: when its first slot was received, of `time.monotonic_ns`."""
        self.came = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plane, name)

    def order(self, manager: str, stream: int, version: Any, container: str, *rest: Any) -> bool:
        """See `DataPlane.order`; `rest` begins with the target and the action's name."""
        now = time.monotonic_ns()
        obeyed = self._plane.order(manager, stream, version, container, *rest)
        target, action = rest[:2]
        if obeyed and target:
            self.shares.setdefault(action, now)
            self.came.set()
        return obeyed


class Probe(Router):
    """The Router; its clients are the bench's own."""

    def __init__(self, config: RouterConfig) -> None:
        super().__init__(config)
        self.noting = NotingPlane(self._plane)
        self._session._plane = self.noting  # type: ignore[assignment]

    async def share(self, action: str) -> int:
        """Waits for the action's first slot; when it came."""
        while action not in self.noting.shares:
            self.noting.came.clear()
            await self.noting.came.wait()
        return self.noting.shares[action]
