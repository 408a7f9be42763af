"""What has to hold: after every event and after every revision of etcd."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from slotway.etcd import rpc_pb2
from tests.simulation.plane import SimulatedPlane
from tests.simulation.store import Revision

if TYPE_CHECKING:
    from tests.simulation.world import World

WAIT_S = 1.0
"""How long a request may wait while slots of its action idle at another Router."""
PREFIX = b"/slotway/simulated/containers/"


class Checks:
    """See the module."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.granted: dict[str, dict[str, int]] = {}
        """Per container on the ledger: shares by incarnation."""
        self.capacity: dict[str, int] = {}
        self.states: dict[str, str] = {}
        self.actions: dict[str, str] = {}

    def begin(self) -> None:
        """From now on."""
        self._world.quorum.store.on_revision.append(self._revision)

    def _revision(self, revision: Revision) -> None:
        world = self._world
        world.trace(revision.number, [one.kv.key for one in revision.events])
        for event in revision.events:
            key = event.kv.key
            if key.startswith(PREFIX):
                self._record(key[len(PREFIX) :].decode(), event)

    def _record(self, name: str, event: rpc_pb2.Event) -> None:
        world = self._world
        if event.type == rpc_pb2.Event.DELETE:
            if name in world.engine.containers:
                world.fail(f"the record of container {name} is deleted, and it runs")
            self.granted.pop(name, None)
            return
        record = json.loads(event.kv.value)
        shares, capacity = record.get("shares", {}), record["capacity"]
        self.granted[name], self.capacity[name] = shares, capacity
        self.states[name], self.actions[name] = record["state"], record["action"]
        if sum(shares.values()) > capacity:
            world.fail(f"{shares} of container {name} are more than its {capacity} slots")
        for router in world.routers:
            if router.up:
                self.share_changed(router.plane, name)

    def share_changed(self, plane: SimulatedPlane, container: str) -> None:
        """What a Router may use, and uses, is at most its recorded share."""
        world = self._world
        if container not in world.engine.containers:
            return
        granted = self.granted.get(container, {}).get(plane.incarnation, 0)
        for name, held, running in plane.table.holdings():
            if name == container and max(held, running) > granted:
                world.fail(
                    f"Router {plane.node.name} holds {held} and runs {running} of container "
                    f"{name}, and its share on the ledger is {granted}"
                )

    async def watch_waiting(self) -> None:
        """Without faults no request waits for long while slots of its action idle."""
        world, idle_since = self._world, dict[str, float]()
        while True:
            await asyncio.sleep(0.1)
            now = world.loop.time()
            for action in world.actions:
                if any(router.plane.idle(action) for router in world.routers):
                    idle_since.setdefault(action, now)
                else:
                    idle_since.pop(action, None)
            for router in world.routers:
                for one in router.plane.open.values():
                    idle_s = now - idle_since.get(one.action, now)
                    if one.waits_at and min(idle_s, now - one.waits_since) > WAIT_S:
                        world.fail(f"request {one.number} waits while slots of {one.action} idle")

    def end(self) -> None:
        """What the whole run has to show."""
        world = self._world
        if world.calm and world.log.count["leader"] != 1:
            world.fail("without any fault the leader changed")
