"""What has to hold: after every event, after every revision of etcd, and when all is quiet."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from slotway.etcd import rpc_pb2
from tests.simulation.plane import Request, SimulatedPlane
from tests.simulation.store import Revision

if TYPE_CHECKING:
    from tests.simulation.world import World

WARM_S = 40.0
"""Longer than the longest back-off."""
SETTLED_S = 1.3
"""Longer than the grace of a container with overruns."""
FILL_S = 2.5
"""How long the slots may take to come where they are wanted: less than requests' timeout."""
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
        self._before: set[str] = set()
        self._since = 0.0

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
        self.states[name] = record["state"]
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
        for router in world.routers:
            terms = router.plane.terms
            if terms != sorted(terms):
                world.fail(f"terms went back at {router.name}: {terms}")

    async def quiet(self) -> None:
        """All faults are over and nothing new comes: every request ends, every slot is back."""
        world = self._world
        await self._until("every request is answered", self._all_answered, 40)
        await self._until("somebody leads", lambda: any(m.leads for m in world.managers), 40)
        await self._warm_up()
        await self._until("no container comes or goes", self._settled, 25)
        await self._until("what Routers hold is what the ledger says", self._agreed, 10)
        await self._fill()

    async def _warm_up(self) -> None:
        """Cold requests are served again: every action at every Router."""
        world = self._world
        missing = [(router, action) for router in world.routers for action in sorted(world.actions)]
        until = world.loop.time() + WARM_S
        while missing and world.loop.time() < until:
            asked = [(one, world.invoke(*one)) for one in missing]
            await self._until("every cold request is answered", self._all_answered, 25)
            missing = [one for one, request in asked if request.outcome != "answer"]
            await asyncio.sleep(0.2)
        if missing:
            world.fail(f"not within {WARM_S} s: cold requests are served; {missing[0]} is not")

    def _agreed(self) -> bool:
        """Whether every Router holds its recorded shares, and nothing else."""
        for router in self._world.routers:
            recorded = {
                name: shares[router.plane.incarnation]
                for name, shares in self.granted.items()
                if router.plane.incarnation in shares
            }
            if {name: held for name, held, _ in router.plane.table.holdings()} != recorded:
                return False
        return True

    def _settled(self) -> bool:
        """Whether for some time no container came, went, or was about to."""
        now = self._world.loop.time()
        states = {self.states.get(name, "none") for name in self.granted}
        seen = {*self.granted, str(self._world.log.count["leader"])}
        if states - {"CONTAINER_STATE_READY"} or seen != self._before:
            self._before, self._since = seen, now
        return now - self._since >= SETTLED_S

    def _all_answered(self) -> bool:
        return not any(router.plane.open for router in self._world.routers if router.up)

    async def _until(self, what: str, holds: object, limit_s: float) -> bool:
        assert callable(holds)
        until = self._world.loop.time() + limit_s
        while not holds():
            if self._world.loop.time() >= until:
                self._world.fail(f"not within {limit_s} s: {what}")
                return False
            await asyncio.sleep(0.05)
        return True

    async def _fill(self) -> None:
        """As many requests as there are slots run at once, and no container is created."""
        world = self._world
        live = {router.plane.incarnation for router in world.routers if router.up}
        created = world.engine.created
        barrier: list[Request] = []
        for action in sorted(world.actions):
            slots = 0
            for name, container in sorted(world.engine.containers.items()):
                if self.states.get(name) != "CONTAINER_STATE_READY" or name not in self.granted:
                    continue
                if self._action_of(container.label.id) == action:
                    dead = sum(n for who, n in self.granted[name].items() if who not in live)
                    slots += container.capacity - dead
            for number in range(slots):
                router = world.routers[number % len(world.routers)]
                barrier.append(world.invoke(router, action, run_s=1000.0))
        world.count["slots filled at the end"] += len(barrier)
        await self._until(
            "as many requests as there are slots run at once",
            lambda: self._run(barrier),
            FILL_S,
        )
        if world.engine.created > created:
            world.fail(f"{world.engine.created - created} containers were created to fill others")
        for one in barrier:
            world.engine.finish(one.number)
        await self._until("every request is answered at the end", self._all_answered, 10)

    def _run(self, requests: list[Request]) -> bool:
        """Whether all of them run at present, as the containers see it."""
        runs = {number for one in self._world.engine.containers.values() for number in one.runs}
        return all(request.number in runs for request in requests)

    def _action_of(self, container: str) -> str:
        item = self._world.quorum.store.at(PREFIX + container.encode())
        return str(json.loads(item.value)["action"]) if item is not None else ""
