"""When all faults are over: everything is served again, and every slot is back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.request import Request

if TYPE_CHECKING:
    from tests.simulation.world import World

WARM_S = 40.0
"""Longer than the longest back-off."""
SETTLED_S = 1.3
"""Longer than the grace of a container with overruns."""
FILL_S = 2.5
"""How long the slots may take to come where they are wanted: less than requests' timeout."""
READY = "CONTAINER_STATE_READY"


class Quiet:
    """The end of a simulation."""

    def __init__(self, world: World) -> None:
        self._world, self._checks = world, world.checks
        self._before: set[str] = set()
        self._since = 0.0

    async def come(self) -> None:
        """Nothing goes wrong any more. What does not hold within its time is a failure."""
        world = self._world
        await self._until("every request is answered", self._all_answered, 40)
        await self._until("all code has ended", self._nothing_runs, 10)  # clients may have left
        await self._until("somebody leads", lambda: any(m.leads for m in world.managers), 40)
        await self._warm_up()
        await self._settle()
        if any(self._dead(name) for name in self._checks.granted):
            # Slots that went with a Router are replaced when they are missed.
            await self._end(await self._fill(with_dead=True))
            await self._settle()
        created = world.engine.created
        filled = await self._fill(with_dead=False)
        if world.engine.created > created:
            world.fail(f"{world.engine.created - created} containers were created to fill others")
        world.count["slots filled at the end"] += len(filled)
        await self._end(filled)

    async def _warm_up(self) -> None:
        """Cold requests are served: every action at every Router."""
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

    async def _settle(self) -> None:
        await self._until("no container comes or goes", self._settled, 25)
        await self._until("what Routers hold is what the ledger says", self._agreed, 10)

    def _settled(self) -> bool:
        """Whether for some time no container came, went, or was about to."""
        now = self._world.loop.time()
        states = {self._checks.states[name] for name in self._checks.granted}
        seen = {*self._checks.granted, str(self._world.log.count["leader"])}
        if states - {READY} or seen != self._before:
            self._before, self._since = seen, now
        return now - self._since >= SETTLED_S

    def _agreed(self) -> bool:
        """Whether every Router holds its recorded shares, and nothing else."""
        for router in self._world.routers:
            mine = router.plane.incarnation
            granted = self._checks.granted.items()
            recorded = {name: shares[mine] for name, shares in granted if mine in shares}
            if {name: held for name, held, _ in router.plane.table.holdings()} != recorded:
                return False
        return True

    def _all_answered(self) -> bool:
        return not any(router.plane.open for router in self._world.routers if router.up)

    def _nothing_runs(self) -> bool:
        return not any(one.runs for one in self._world.engine.containers.values())

    def _dead(self, container: str) -> int:
        """Slots that are recorded for Routers that are no more."""
        live = {router.plane.incarnation for router in self._world.routers}
        shares = self._checks.granted[container].items()
        return sum(slots for holder, slots in shares if holder not in live)

    async def _until(self, what: str, holds: Callable[[], bool], limit_s: float) -> None:
        until = self._world.loop.time() + limit_s
        while not holds():
            if self._world.loop.time() >= until:
                self._world.fail(f"not within {limit_s} s: {what}")
            await asyncio.sleep(0.05)

    async def _fill(self, *, with_dead: bool) -> list[Request]:
        """As many requests as there are slots run at once."""
        world = self._world
        asked: list[Request] = []
        for action in sorted(world.actions):
            slots = sum(
                self._checks.capacity[name] - (0 if with_dead else self._dead(name))
                for name in self._checks.granted
                if self._checks.actions[name] == action
            )
            for number in range(slots):
                router = world.routers[number % len(world.routers)]
                asked.append(world.invoke(router, action, run_s=1000.0))
        if with_dead:  # there may be no room for a container beside one that drains
            await asyncio.sleep(FILL_S)
        else:
            what = "as many requests as there are slots run at once"
            await self._until(what, lambda: self._run(asked), FILL_S)
        return asked

    async def _end(self, requests: list[Request]) -> None:
        for one in requests:
            one.run_s = 0.01  # if it still waits
            self._world.engine.finish(one.number)
        await self._until("every request is answered at the end", self._all_answered, 10)

    def _run(self, requests: list[Request]) -> bool:
        """Whether all of them run at present, as the containers see it."""
        runs = {number for one in self._world.engine.containers.values() for number in one.runs}
        return all(request.number in runs for request in requests)
