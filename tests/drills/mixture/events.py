"""Lets the events of a schedule happen, and counts those whose effect was seen."""

from __future__ import annotations

import asyncio
import random
import subprocess
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from slotway.aio import CallError, Client
from slotway.errors import SlotwayError
from tests.drills.mixture import faults
from tests.drills.mixture.load import FULL, STEADY, Load
from tests.drills.mixture.schedule import Event, Kind
from tests.drills.mixture.witness import Witness
from tests.integration.parts import Parts

CONTROL_S = 30.0
"""For a change that the cluster is asked for; a Router or two may be away."""
CONTROL_PAUSE_S = 0.2
BEGUN_S = 20.0
ATTEMPTS = 3
BURST = {"process": 6, "docker": 3}
"""Requests of each of the actions that together need more containers than there may be."""
T = TypeVar("T")


class Events:
    """One campaign's. Events of one kind come one after the other, those of others beside them."""

    def __init__(self, parts: Parts, load: Load, witness: Witness) -> None:
        self._parts, self._load, self._witness = parts, load, witness
        self.done: Counter[Kind] = Counter()
        self.missed: list[str] = []
        """What did not come off."""
        self._turns = {kind: asyncio.Lock() for kind in Kind}
        self._what: dict[Kind, Callable[[random.Random], Awaitable[bool]]] = {
            Kind.UPDATE: self._update,
            Kind.REPLACE: self._replace,
            Kind.CRASH: self._crash,
            Kind.MEMORY: self._memory,
            Kind.ENGINE: self._engine,
            Kind.FULL: self._full,
            Kind.MOVE: self._move,
            Kind.ROUTER: self._router,
            Kind.MANAGER: self._manager,
        }

    async def run(self, events: Sequence[Event]) -> None:
        """All of them, each at its time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for event in events:
                await asyncio.sleep(max(0.0, began + event.at_s - loop.time()))
                group.create_task(self._happen(event))

    async def _happen(self, event: Event) -> None:
        async with self._turns[event.kind]:
            try:
                came_off = await self._what[event.kind](random.Random(event.seed))
            except (SlotwayError, OSError, AssertionError, subprocess.SubprocessError) as error:
                came_off = False
                self.missed.append(f"{event.kind} at {event.at_s:.1f} s: {error!r}")
        self.done[event.kind] += came_off

    async def control(self, ask: Callable[[Client], Awaitable[T]]) -> T:
        """Asks one Router after the other, until one could do it: Routers, the leader or the
        engine, which has to say what an image can do, may be away."""
        deadline = asyncio.get_running_loop().time() + CONTROL_S
        while True:
            for client in self._parts.clients:
                try:
                    return await ask(client)
                except CallError as error:
                    late = asyncio.get_running_loop().time() > deadline
                    if late or error.reason == "ACTION_NOT_FOUND":
                        raise
            await asyncio.sleep(CONTROL_PAUSE_S)

    async def _update(self, rng: random.Random) -> bool:
        name = rng.choice(STEADY).name
        await self.control(lambda client: self._load.put(name, client))
        return True

    async def _replace(self, rng: random.Random) -> bool:
        name = rng.choice(STEADY).name
        try:
            await self.control(lambda client: client.delete_action(name))
        except CallError as error:  # it was done, and the answer was lost
            if error.reason != "ACTION_NOT_FOUND":
                raise
        await asyncio.sleep(rng.uniform(0.0, 0.5))
        await self.control(lambda client: self._load.put(name, client))
        return True

    async def _crash(self, rng: random.Random) -> bool:
        return await self._lose(rng, {"mood": "crash"})

    async def _memory(self, rng: random.Random) -> bool:
        if self._parts.driver == "docker":
            return await self._lose(rng, {"mood": "memory"})
        return await self._lose(rng, {"sleep_s": 1.0}, kill=True)

    async def _lose(self, rng: random.Random, arguments: object, *, kill: bool = False) -> bool:
        """A request that takes its container along, whatever else runs there."""
        for _ in range(ATTEMPTS):
            name, run = rng.choice(STEADY).name, uuid.uuid4().hex
            router = rng.randrange(len(self._parts.clients))
            call = asyncio.create_task(self._load.one(name, arguments, router=router, run=run))  # type: ignore[arg-type]
            if kill and (container := await self._witness.begun(run, BEGUN_S)):
                faults.kill_runtime(self._parts.data_dir, container)
            if await call == "CONTAINER_LOST":
                return True
        return False

    async def _engine(self, rng: random.Random) -> bool:
        return await faults.restart_engine(self._parts)

    async def _full(self, rng: random.Random) -> bool:
        routers = len(self._parts.clients)
        outcomes = await asyncio.gather(
            *(
                self._load.one(
                    kind.name,
                    {"sleep_s": rng.uniform(*kind.sleep_s)},
                    router=rng.randrange(routers),
                )
                for kind in FULL
                for _ in range(BURST[self._parts.driver])
            )
        )
        return "ok" in outcomes

    async def _move(self, rng: random.Random) -> bool:
        name = rng.choice(STEADY).name
        before = self._load.homes.get(name)
        others = [one for one in range(len(self._parts.clients)) if one != before]
        self._load.homes[name] = rng.choice(others)
        return True

    async def _router(self, rng: random.Random) -> bool:
        return await faults.restart_router(self._parts, rng.randrange(len(self._parts.routers)))

    async def _manager(self, rng: random.Random) -> bool:
        return await faults.restart_leader(self._parts)
