"""A Router's data plane without sockets: the real slot table, and requests that live in it.

It does what `slotcore/dataplane/src/{state,invoke,session}.rs` do, in their order: acquire, forward
or wait; run in the container; release, set aside or strand. What a session may ask of it is
`slotway.router.plane.Plane`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slotway._slotcore import Slot, SlotTable
from slotway.router.plane import Term, Version
from tests.simulation.engine import Engine
from tests.simulation.loop import Node, VirtualLoop
from tests.simulation.request import Request, Spec

ASIDE_S = (0.1, 2.0)
MAX_WAIT_S = 20.0
_descriptors = itertools.count(100)


@dataclass
class Happened:
    """See `slotway.router.plane.Happened`."""

    acknowledgements: list[tuple[str, int, Version]]
    demand_rose: bool
    demand_changed: bool
    troubles: list[tuple[str, str, int]]


Forward = Callable[[str, Request], Any]


class SimulatedPlane:
    """See the module. `changed` is called with a container whose share has changed."""

    def __init__(
        self,
        loop: VirtualLoop,
        engine: Engine,
        node: Node,
        incarnation: str,
        forward: Forward,
        changed: Callable[[SimulatedPlane, str], None],
        planted: str = "",
    ) -> None:
        self.incarnation, self.node = incarnation, node
        self.table = SlotTable(planted=planted) if planted else SlotTable()
        self.specs: dict[str, Spec] = {}
        self.open: dict[int, Request] = {}
        """Requests without an outcome."""
        self._loop, self._engine, self._forward, self._changed = loop, engine, forward, changed
        self._term: Term = (0, 0)
        """The newest that was obeyed or welcomed."""
        self._fd = next(_descriptors)
        self._waiters: dict[int, tuple[asyncio.Future[Any], Request]] = {}
        self._forwarded: dict[str, set[int]] = defaultdict(set)
        self._numbers = itertools.count(1)
        self._peers: dict[str, list[list[Any]]] = {}
        self._troubles: dict[tuple[str, str], int] = {}
        self._told_rise = False
        self._began = loop.time()

    def _now_ms(self) -> int:
        return int((self._loop.time() - self._began) * 1000)

    def _signal(self) -> None:
        table = self.table
        if (
            (table.demand_rose and not self._told_rise)
            or table.acknowledgements_due
            or self._troubles
        ):
            self._loop.raise_fd(self._fd)

    # The session's side.

    @property
    def obeyed(self) -> Version | None:
        """The newest order obeyed."""
        return self.table.obeyed

    def fileno(self) -> int:
        """A number that the virtual loop knows."""
        return self._fd

    def open_stream(self, manager: str, stream: int) -> None:
        """See `DataPlane`."""
        self.table.open_stream(manager, stream)

    def close_stream(self, manager: str, stream: int) -> None:
        """See `DataPlane`."""
        self.table.close_stream(manager, stream)

    def welcome(self, manager: str, stream: int, term: Term) -> list[tuple[str, int, int]] | None:
        """See `DataPlane`."""
        holdings = self.table.welcome(manager, stream, term)
        if holdings is not None:
            self._term = max(self._term, term)
        return holdings

    def order(
        self,
        manager: str,
        stream: int,
        version: Version,
        container: str,
        target: int,
        action: str,
        revision: int,
        address: str,
        capacity: int,
        timeout_ms: int,
        parameters: bytes,
    ) -> bool:
        """See `DataPlane`."""
        granted = self.table.order(
            manager, stream, version, container, target, action, capacity, self._now_ms()
        )
        if granted is None:
            return False
        if version[:2] < self._term:
            self._engine.fail(f"Router {self.node.name} obeyed {version} after term {self._term}")
        self._term = max(self._term, version[:2])
        if container not in self.specs:
            self.specs[container] = Spec(action, address, capacity, timeout_ms / 1000)
        self._deliver(granted)
        self._send_back(action)
        self._changed(self, container)
        self._signal()
        return True

    def ended(self, manager: str, stream: int, term: Term, container: str, how: str = "") -> bool:
        """See `DataPlane`."""
        if term < self.table.term:
            return False
        if self.table.ended(container):
            spec = self.specs.pop(container)
            spec.ended.set_result(None)
            self._send_back(spec.action)
        return True

    def peers(self, action: str, peers: Sequence[tuple[str, str, int]]) -> None:
        """See `DataPlane`."""
        before = {peer[0]: peer for peer in self._peers.pop(action, [])}
        listed = [
            [incarnation, address, waiting, before[incarnation][3] if incarnation in before else 0]
            for incarnation, address, waiting in peers
            if incarnation != self.incarnation
        ]
        if listed:
            self._peers[action] = listed

    def drop_peers(self) -> None:
        """See `DataPlane`."""
        self._peers.clear()

    def refuse(self, action: str, reason: str, message: str, retry_ms: int) -> None:
        """See `DataPlane`."""
        for waiter in self.table.drain(action):
            future, _ = self._waiters.pop(waiter)
            if not future.done():
                future.set_result(reason)
        self._signal()

    def give_back(self, idle_ms: int) -> None:
        """See `DataPlane`."""
        self.table.give_back(idle_ms, self._now_ms())
        self._signal()

    def events(self) -> Happened:
        """See `DataPlane`."""
        self._loop.clear_fd(self._fd)
        self._told_rise = self.table.demand_rose
        troubles, self._troubles = self._troubles, {}
        happened = Happened(
            self.table.acknowledgements(),
            self._told_rise,
            self.table.demand_changed,
            [(container, kind, slots) for (container, kind), slots in troubles.items()],
        )
        held = {name for name, _, _ in self.table.holdings()}
        for container, _, _ in happened.acknowledgements:
            if container not in held:
                self.specs.pop(container, None)  # the table has forgotten it
        return happened

    def demand(self) -> list[tuple[str, int, list[tuple[str, int]]]]:
        """See `DataPlane`."""
        self._told_rise = False
        return self.table.demand()

    def holdings(self) -> list[tuple[str, str, int, int]]:
        """See `DataPlane`."""
        return [
            (name, self.specs[name].action, held, running)
            for name, held, running in self.table.holdings()
        ]

    # Requests.

    async def serve(self, request: Request, *, forwarded: bool = False) -> str:
        """Serves a request to its end; returns its outcome."""
        while True:
            slot = self.table.acquire(request.action)
            if slot is None:
                if not self.table.has_share(request.action):
                    if forwarded:
                        return "NOT_HERE"
                    if request.action in self._peers:
                        peer = min(self._peers[request.action], key=lambda one: one[2] + one[3])
                        outcome = await self._ask(peer, request)
                        if outcome is not None:
                            return outcome
                        continue
                given = await self._wait(request, forwarded=forwarded)
                if isinstance(given, str):
                    return given
                slot, spec = given
            else:
                spec = self.specs[slot.container]
            outcome = await self._run(request, slot, spec)
            if outcome is not None:
                return outcome

    async def _ask(self, peer: list[Any], request: Request) -> str | None:
        peer[3] += 1
        try:
            outcome: str | None = await self._forward(peer[1], request)
        finally:
            peer[3] -= 1
        if outcome is None:
            listed = self._peers.get(request.action, [])
            if peer in listed:
                listed.remove(peer)
                if not listed:
                    del self._peers[request.action]
        return outcome

    async def _wait(self, request: Request, *, forwarded: bool) -> tuple[Slot, Spec] | str:
        waiter = next(self._numbers)
        if not self.table.enqueue(request.action, waiter, True):
            return "QUEUE_FULL"
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiters[waiter] = future, request
        if forwarded:
            self._forwarded[request.action].add(waiter)
        request.waits_at, request.waits_since = self.incarnation, self._loop.time()
        self._signal()
        try:
            await asyncio.wait(
                {future, request.left}, timeout=MAX_WAIT_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            request.waits_at = ""
            self._forwarded[request.action].discard(waiter)
            if not future.done() and self.table.cancel(waiter):
                del self._waiters[waiter]
        if future.done():
            given: tuple[Slot, Spec] | str = future.result()
            return given
        self._signal()
        return "left" if request.left.done() else "MAX_WAIT"

    async def _run(self, request: Request, slot: Slot, spec: Spec) -> str | None:
        name = slot.container
        done: asyncio.Future[str] = self._loop.create_future()

        def told(how: str) -> None:
            pause = self._engine.random.uniform(0.0001, 0.001)
            self._loop.call_later(pause, answered, how, context=self.node.context)

        def answered(how: str) -> None:
            if not done.done():
                done.set_result(how)

        pause = self._engine.random.uniform(0.0001, 0.001)
        self._loop.call_later(
            pause,
            self._engine.deliver,
            spec.address,
            request.number,
            request.run_s,
            told,
            context=self._engine.node.context,
        )
        pending: set[asyncio.Future[Any]] = {done, spec.ended}
        await asyncio.wait(pending, timeout=spec.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        overran = not done.done() and not spec.ended.done()
        if overran:  # the client is told; the slot stays taken
            request.outcome = request.outcome or "ACTION_TIMEOUT"
            self._trouble(name, "overrun")
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            return "CONTAINER_LOST"  # its slot is void already
        match done.result():
            case "answer":
                spec.refusals = 0
                self._deliver_one(self.table.release(slot))
                self._changed(self, name)
                self._signal()
                return "answer"
            case "refused":
                self._set_aside(name, spec, slot)
                return None
            case _:
                if not overran:
                    self._trouble(name, "overrun")
                self._deliver_one(self.table.strand(slot))
                return "CONTAINER_LOST"

    def _set_aside(self, name: str, spec: Spec, slot: Slot) -> None:
        now = self._loop.time()
        if now >= spec.refused_until:
            spec.refused_until = now + min(ASIDE_S[1], ASIDE_S[0] * 2**spec.refusals)
            spec.refusals += 1
        self.table.set_aside(slot, int((spec.refused_until - self._began) * 1000))
        self._loop.call_at(spec.refused_until + 0.05, self._restore)
        self._trouble(name, "refused")

    def _restore(self) -> None:
        self._deliver(self.table.restore(self._now_ms()))
        self._signal()

    def _trouble(self, container: str, kind: str) -> None:
        key = (container, kind)
        self._troubles[key] = self._troubles.get(key, 0) + 1
        self._signal()

    def _deliver_one(self, given: tuple[int, Slot] | None) -> None:
        if given is not None:
            self._deliver([given])

    def _deliver(self, granted: Sequence[tuple[int, Slot]]) -> None:
        for waiter, slot in granted:
            future, _ = self._waiters.pop(waiter)
            if future.done():
                self._deliver_one(self.table.release(slot))
            else:
                future.set_result((slot, self.specs[slot.container]))

    def _send_back(self, action: str) -> None:
        if self.table.has_share(action):
            return
        for waiter in sorted(self._forwarded.pop(action, ())):
            if self.table.cancel(waiter):
                future, _ = self._waiters.pop(waiter)
                if not future.done():
                    future.set_result("NOT_HERE")

    def idle(self, action: str) -> int:
        """Slots that could take a request of the action at once."""
        idle = 0
        for name, held, running in self.table.holdings():
            spec = self.specs.get(name)
            if spec is not None and spec.action == action:
                idle += max(0, held - running)
        return idle
