"""A crowd of sessions and containers, for takeovers at scale.

Every session holds a share of every action: the containers are spread over all of them, as those
of a busy cluster are.
"""

import asyncio
import json
from typing import Any

from drills.child import Child
from drills.world import CLUSTER, World
from slotway.records import Keys

CONTAINERS = 5_000
ACTIONS = 50
CONCURRENCY = 10
SESSIONS_EACH = 100
"""In one process."""
FILL_S = 300.0
LOOK_S = 1.0


class Crowd:
    """So many sessions more in a world, and 5,000 containers; an async context manager."""

    def __init__(self, world: World, sessions: int, containers: int = CONTAINERS) -> None:
        self._world, self._sessions, self._containers = world, sessions, containers
        self._led: dict[int, int] = {}
        self._children = []
        for first in range(0, sessions, SESSIONS_EACH):
            settings = {
                "cluster": CLUSTER,
                "etcd": world.endpoints,
                "name": f"crowd-{first}",
                "count": min(SESSIONS_EACH, sessions - first),
            }
            log = world.logs / f"crowd-{first}.log"
            hear = self._hearer(first)
            self._children.append(Child(log, "drills.sessions", [json.dumps(settings)], hear))

    def _hearer(self, first: int) -> Any:
        def hear(said: dict[str, int]) -> None:
            self._led[first] = said["led"]

        return hear

    @property
    def led(self) -> int:
        """How many of the sessions a leader has greeted."""
        return sum(self._led.values())

    async def __aenter__(self) -> "Crowd":
        try:
            for child in self._children:
                await child.start()
            await self._world.until("all sessions", lambda: self.led == self._sessions)
            each = self._containers // ACTIONS
            for number in range(ACTIONS):
                name = f"bench/crowd-{number}"
                await self._world.put(
                    name, concurrency=CONCURRENCY, containers_min=each, memory_mib=64
                )
            async with asyncio.timeout(FILL_S):
                while (await self.serving())[0] < self._containers:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_S)
        except BaseException:
            await self._stop()
            raise
        return self

    async def serving(self) -> tuple[int, int]:
        """Containers that serve, and the shares of them: read from etcd, where it disturbs no
        Manager."""
        listing = await self._world.etcd.list(Keys(CLUSTER).containers)
        records = [json.loads(item.value) for item in listing.items]
        ready = [one for one in records if one["state"] == "CONTAINER_STATE_READY"]
        return len(ready), sum(len(one.get("shares", ())) for one in ready)

    async def __aexit__(self, *problem: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        for child in self._children:
            await child.stop()
