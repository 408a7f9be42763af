"""The containers' engine, and the driver through which Managers reach it.

A container is the independent witness: it counts by itself how many requests run in it, from the
moment that one arrives to the moment that its code ends, whoever has sent it and whether or not
that Router still lives. The engine remembers every container that ended: none is created again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

from slotway.drivers.base import (
    Addresses,
    ContainerFound,
    ContainerId,
    ContainerSpec,
    DriverError,
    InitError,
    Label,
)
from slotway.drivers.ends import Ends
from tests.simulation.loop import Node, VirtualLoop

SUBNET = Addresses("10.9.0.0/16", 60_000)


@dataclass(eq=False)
class Run:
    """One request in a container."""

    request: int
    told: Callable[[str], None]
    """Called with "answer", or "broken" if the container ended."""
    left_s: float


@dataclass(eq=False)
class Container:
    """A container that runs."""

    label: Label
    capacity: int
    address: str
    initialised: bool = False
    paused: bool = False
    runs: dict[int, Run] = field(default_factory=dict)
    ended_while_paused: list[int] = field(default_factory=list)
    most: int = 0
    """The most requests that ran at once."""


class Engine:
    """See the module. `fail` is called with what must not happen."""

    def __init__(self, loop: VirtualLoop, random: Random, fail: Callable[[str], None]) -> None:
        self.loop, self.random, self.fail = loop, random, fail
        self.node = Node("engine")
        self.containers: dict[str, Container] = {}
        self.gone: set[str] = set()
        """Containers that ended, or that surely never come to be."""
        self.drivers: dict[SimulatedDriver, None] = {}
        self.at: dict[str, Container] = {}
        """Every address that was ever used."""
        self.runs: Counter[int] = Counter()
        """By request: how often code ran for it."""
        self.created = 0
        self.create_fails = 0.0
        """How probably a creation fails."""
        self.init_fails = 0.0
        self.create_s = 0.05
        self.numbered = random.random() < 0.5

    # What containers do.

    def deliver(
        self, address: str, request: int, run_s: float, told: Callable[[str], None]
    ) -> None:
        """A request arrives at an address; `told` is called once with how it went."""
        container = self.at.get(address)
        if container is None or container.label.id not in self.containers:
            told("refused")
            return
        if not container.initialised:
            self.fail(f"a request came to container {container.label.id} before its init")
        run = Run(request, told, run_s)
        container.runs[request] = run
        self.runs[request] += 1
        if self.runs[request] > 1:
            self.fail(f"request {request} ran twice")
        container.most = max(container.most, len(container.runs))
        if len(container.runs) > container.capacity:
            self.fail(
                f"container {container.label.id} runs {len(container.runs)} requests, "
                f"and its capacity is {container.capacity}"
            )
        self.loop.call_later(run_s, self._finish, container, request, context=self.node.context)

    def _finish(self, container: Container, request: int) -> None:
        if container.paused:
            container.ended_while_paused.append(request)
            return
        run = container.runs.pop(request, None)
        if run is not None:
            run.told("answer")

    def finish(self, request: int) -> None:
        """The request's code ends now."""
        for container in list(self.containers.values()):
            if request in container.runs:
                self._finish(container, request)

    def pause(self, container: Container, *, paused: bool) -> None:
        """Its code stands still, or goes on."""
        container.paused = paused
        if not paused:
            requests, container.ended_while_paused = container.ended_while_paused, []
            for request in requests:
                self._finish(container, request)

    def end(self, container: str) -> None:
        """It ends, with all that runs in it."""
        self.gone.add(container)
        found = self.containers.pop(container, None)
        if found is not None:
            for run in list(found.runs.values()):
                run.told("broken")
            found.runs.clear()
        for driver in self.drivers:
            self.loop.call_later(
                self.random.uniform(0.001, 0.05),
                driver.tell,
                ContainerId(container),
                context=driver.node.context,
            )

    def create(self, spec: ContainerSpec) -> None:
        """Creates and starts it; raises DriverError."""
        label = spec.label
        if label.id in self.containers:
            return
        if label.id in self.gone:
            raise DriverError(f"container {label.id} has ended")
        if self.random.random() < self.create_fails:
            raise DriverError("the engine is out of sorts")
        if spec.address in self.at:
            self.fail(f"container {label.id} gets the address of {self.at[spec.address].label.id}")
        container = Container(label, spec.capacity, spec.address)
        self.containers[label.id] = self.at[spec.address] = container
        self.created += 1


class SimulatedDriver:
    """One Manager's driver; see `slotway.drivers.base.Driver`."""

    name = "simulated"

    def __init__(self, engine: Engine, node: Node, cluster: str) -> None:
        self._engine, self.node, self._cluster = engine, node, cluster
        self.numbered: Addresses | None = SUBNET if engine.numbered else None
        self._ends = Ends()

    async def start(self) -> None:
        """Hears of ends from now on."""
        self._engine.drivers[self] = None

    async def close(self) -> None:
        """Leaves the engine as it is."""
        self._engine.drivers.pop(self, None)

    def engine(self) -> str:
        """One for all Managers."""
        return "simulated/host"

    def address(self, container: ContainerId, number: int = 0) -> str:
        """Named after the container, or numbered."""
        if number:
            return f"10.9.{number // 256}.{number % 256}:8080"
        return f"unix:/simulated/{container}.sock"

    async def _reach(self, factor: float = 1.0) -> None:
        await asyncio.sleep(self._engine.random.uniform(0.0005, 0.003) * factor)

    async def create(self, spec: ContainerSpec) -> None:
        """The engine goes on with it although its Manager dies meanwhile."""
        engine = self._engine
        done: asyncio.Future[None] = engine.loop.create_future()

        def create() -> None:
            try:
                engine.create(spec)
            except DriverError as exc:
                if not done.done():
                    done.set_exception(exc)
            else:
                if not done.done():
                    done.set_result(None)

        pause = engine.create_s * engine.random.uniform(0.5, 3)
        engine.loop.call_later(pause, create, context=engine.node.context)
        await done

    async def init(
        self,
        container: ContainerId,
        value: dict[str, object],
        timeout: timedelta,  # noqa: ASYNC109  (as the interface has it)
    ) -> None:
        """Once, or it fails."""
        await self._reach(10)
        found = self._engine.containers.get(container)
        if found is None:
            raise DriverError(f"container {container} has ended")
        if found.initialised:
            raise InitError("Cannot initialize the action more than once.")
        if self._engine.random.random() < self._engine.init_fails:
            raise InitError("the action's code is out of sorts")
        found.initialised = True

    async def check(self, kind: str, image: str, capacity: int) -> None:
        """All of them fit."""

    def ending(self, container: ContainerId) -> str:
        """Nothing is told."""
        return ""

    async def log(self, container: ContainerId) -> bytes:
        """Nothing is printed."""
        return b""

    async def destroy(self, container: ContainerId) -> None:
        """It ends soon."""
        engine = self._engine
        await self._reach()
        pause = engine.random.uniform(0.0, 0.1)
        engine.loop.call_later(pause, engine.end, container, context=engine.node.context)

    async def has_ended(self, container: ContainerId) -> bool:
        """Whether it is not there, and cannot come to be."""
        await self._reach()
        if container not in self._engine.containers:
            self._engine.gone.add(container)
            return True
        return False

    async def list(self) -> list[ContainerFound]:
        """What runs."""
        await self._reach()
        return [
            ContainerFound(one.label, True, one.address) for one in self._engine.containers.values()
        ]

    def ends(self) -> AsyncIterator[ContainerId]:
        """See `base.Driver`."""
        return self._ends.read()

    def tell(self, container: ContainerId) -> None:
        """For the engine: this one has ended."""
        self._ends.tell(container)
