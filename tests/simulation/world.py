"""One simulation: a cluster, what happens to it, and what has to hold meanwhile and afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

import grpc
import grpc.aio

from slotway.v1 import action_pb2
from slotway.v1.action_pb2_grpc import ActionServiceStub
from tests.simulation.checks import Checks
from tests.simulation.engine import Engine
from tests.simulation.etcd import Quorum
from tests.simulation.faults import Faults
from tests.simulation.loop import Node, Stuck, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.planted import PLANTED, plant
from tests.simulation.processes import EtcdMember, Hall, ManagerProcess, RouterProcess
from tests.simulation.quiet import Quiet
from tests.simulation.request import Request
from tests.simulation.sources import Log, buried, replaced

CAPACITIES = (1, 3, 10)
TIMEOUT_S = 3.0
"""Of every action."""
LEISURELY = 200
"""So many seeds take their time; in the others more happens at once, and many fit into a CI run."""
HASTE = 2.5
FAULTY = 0.7
"""Of the events of the others so many happen while there are faults; the rest is the quiet end."""
OVERRUN = 0.004
"""How many requests run about as long, or longer."""


@dataclass
class Findings:
    """What became of a seed."""

    seed: int
    events: int = 0
    failures: list[str] = field(default_factory=list)
    count: Counter[str] = field(default_factory=Counter)
    virtual_s: float = 0.0
    digest: str = ""
    """Of all that happened: the same in every run of the seed."""


class World:
    """See the module. `planted` is a bug to be made on purpose; `faults`: whether there are any."""

    def __init__(self, seed: int, *, events: int, show: bool = False, planted: str = "") -> None:
        self.seed, self.planted = seed, planted
        self.play: Callable[[World], Awaitable[None]] | None = None
        """What happens, in the place of what the seed says: for tests of one story."""
        self.rng = rng = Random(seed)
        self.events_wanted = events
        self.events = 0
        self.count: Counter[str] = Counter()
        self.failures: list[str] = []
        self.loop = VirtualLoop()
        self.network = Network(self.loop, rng)
        self.log = Log(self.loop, show)
        self.engine = Engine(self.loop, rng, self.fail)
        self.quorum = Quorum(rng)
        self.requests: dict[int, Request] = {}
        self.checks = Checks(self)
        self.hall = Hall(
            self.loop,
            self.network,
            self.engine,
            self.quorum,
            self.count,
            self.fail,
            self.note,
            self.requests,
            self.checks.share_changed,
            timedelta(milliseconds=100),
            "" if planted in PLANTED else planted,
        )
        self.etcd = [EtcdMember(self.hall, number) for number in range(2)]
        managers = 3 if seed % 4 == 3 else 2
        self.managers = [ManagerProcess(self.hall, number) for number in range(managers)]
        self.routers = [RouterProcess(self.hall, number) for number in range(3)]
        self.actions: dict[str, int] = {}
        """Their capacities."""
        self.faults = Faults(self)
        self.calm = seed % 10 == 0
        """A run without faults, which has to see no change of the leader."""
        self.client = Node("client")
        self._digest = hashlib.sha256()
        self._numbers = iter(range(1, 1_000_000))

    def fail(self, what: str) -> None:
        """Something that must not happen has happened."""
        at = self.loop.time() - 1000
        if len(self.failures) < 20:
            self.failures.append(f"at {at:.4f} s, event {self.events}: {what}")
        self.log.say(f"FAILURE: {what}")
        self.loop.stop()

    def note(self, what: str) -> None:
        """An event of the script."""
        self.events += 1
        self.log.say(f"event {self.events}: {what}")

    def trace(self, *what: object) -> None:
        """Goes into the digest."""
        self._digest.update(repr((round(self.loop.time(), 6), what)).encode())

    def run(self) -> Findings:
        """All of it; the world is of no use afterwards."""
        with buried():
            findings = self._run()
            self.network.__dict__.clear()
            self.__dict__.clear()
        return findings

    def _run(self) -> Findings:
        with ExitStack() as stack:
            stack.enter_context(replaced(self.loop, self.network, self.rng, self.log))
            plant(self.planted, stack)
            try:
                self.loop.run(self._live())
            except Stuck as exc:
                self.fail(str(exc))
            except Exception:
                if not self.failures:  # a failure stops the loop, and that raises, too
                    self.failures.append(traceback.format_exc())
            finally:
                self.log.mute()
                self.loop.abandon()
        return self._findings()

    def _findings(self) -> Findings:
        self.failures += self.loop.failures + self.log.errors
        self.count.update(self.network.count)
        self.count["proposals applied late"] += self.quorum.late
        self.count["leases expired"] += self.quorum.expired
        self.count.update({f"log: {what}": times for what, times in self.log.count.items()})
        self._digest.update(repr(sorted(self.count.items())).encode())
        return Findings(
            self.seed,
            self.events,
            self.failures,
            self.count,
            self.loop.time() - 1000,
            self._digest.hexdigest()[:16],
        )

    async def _live(self) -> None:
        begin = Node("init")
        self.loop.spawn(begin, self.quorum.expire(), "etcd-leases")
        parts: list[EtcdMember | ManagerProcess | RouterProcess]
        parts = [*self.etcd, *self.managers, *self.routers]
        for process in parts:
            process.start()
        self.checks.begin()
        if self.play is not None:
            await self.play(self)
            return
        await self.loop.spawn(self.client, self._put_actions(), "put-actions")
        watching = asyncio.ensure_future(self.checks.watch_waiting()) if self.calm else None
        per_s, wanted = float(self.rng.choice((25, 50, 80))), self.events_wanted
        if self.seed >= LEISURELY:
            per_s, wanted = per_s * HASTE, round(wanted * FAULTY)
        while self.events < wanted:
            await asyncio.sleep(self.rng.expovariate(per_s))
            self._happen()
        if watching is not None:
            watching.cancel()
        await self.faults.end()
        await Quiet(self).come()
        while self.events < self.events_wanted:
            self.invoke(self.rng.choice(self.routers), self.rng.choice(sorted(self.actions)), 0.01)
            await asyncio.sleep(0.02)
        self.checks.end()

    async def _put_actions(self) -> None:
        for number in range(self.rng.randint(1, 3)):
            name = f"guest/a{number}"
            self.actions[name] = capacity = self.rng.choice(CAPACITIES)
            await self.put_action(name, capacity)

    async def put_action(self, name: str, capacity: int) -> None:
        """A client puts an action; it tries until the leader takes it."""
        action = action_pb2.Action(name=name)
        action.exec.kind = "python:3"
        action.limits.concurrency = capacity
        action.limits.timeout.FromMilliseconds(int(TIMEOUT_S * 1000))
        request = action_pb2.PutActionRequest(action=action, code=b"def main(): pass")
        await self._ask("PutAction", request)

    async def delete_action(self, name: str) -> None:
        """See `put_action`."""
        await self._ask("DeleteAction", action_pb2.DeleteActionRequest(name=name))

    async def _ask(self, method: str, request: object) -> None:
        while True:
            for manager in self.managers:
                if not manager.leads:
                    continue
                async with grpc.aio.insecure_channel(manager.address) as channel:
                    try:
                        await getattr(ActionServiceStub(channel), method)(request, timeout=5)
                    except grpc.aio.AioRpcError as exc:
                        if exc.code() is not grpc.StatusCode.NOT_FOUND:
                            continue
                    return
            await asyncio.sleep(0.05)

    def _happen(self) -> None:
        if not self.calm and self.rng.random() < 0.12:
            self.faults.begin_one()
            return
        up = [router for router in self.routers if router.accepting]
        if up:
            self.invoke(self.rng.choice(up), self.rng.choice(sorted(self.actions)))

    def invoke(self, router: RouterProcess, action: str, run_s: float = 0.0) -> Request:
        """A request of a client's."""
        if not run_s and not self.calm and self.rng.random() < OVERRUN:
            run_s = TIMEOUT_S * self.rng.uniform(0.9, 2)
        run_s = run_s or self.rng.choice((0.005, 0.05, 0.3)) * self.rng.uniform(0.2, 2)
        request = Request(next(self._numbers), action, run_s, self.loop.time())
        self.note(f"request {request.number} of {action} at {router.name}, {run_s:.3f} s")
        router.invoke(request)
        return request
