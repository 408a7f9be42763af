"""What a simulated data plane knows of a request, and of the container that it runs in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False)
class Request:
    """One request of a client's. `outcome` is set once."""

    number: int
    action: str
    run_s: float
    arrived_at: float
    outcome: str = ""
    left: asyncio.Future[None] = field(default_factory=_future)
    """Done when its client has gone."""
    waits_at: str = ""
    """The incarnation of the Router in whose queue it is."""
    waits_since: float = 0.0

    def leave(self) -> None:
        """Its client goes."""
        if not self.left.done():
            self.left.set_result(None)


@dataclass
class Spec:
    """What is known of a container."""

    action: str
    address: str
    capacity: int
    timeout_s: float
    ended: asyncio.Future[None] = field(default_factory=_future)
    refusals: int = 0
    refused_until: float = 0.0
