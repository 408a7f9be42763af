"""A Router that serves nobody: it hears what every Router hears from the Managers, and when.

It speaks the session protocol as each Router does, with a stream to every Manager. Slots that it is
given stay idle, and go back when they are asked for; it leaves in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import Mapping
from typing import Any

import grpc.aio

from slotway.v1 import manager_pb2 as pb
from slotway.v1.manager_pb2_grpc import ManagerServiceStub

PROTOCOL = 1
REPORT_S = 0.05
RECONNECT_S = 0.05
TURNS = 3
NOWHERE = "127.0.0.1:1"
"""It is nobody's peer, because it holds slots of actions that only it asks for."""

Term = tuple[int, int]


class Observer:
    """One incarnation of a Router. Moments are those of `time.monotonic_ns`."""

    def __init__(self, managers: Mapping[str, str]) -> None:
        """`managers` are the Managers' addresses by id."""
        self.name = f"drill-{secrets.token_hex(4)}"
        self._incarnation = secrets.token_hex(16)
        self._managers = dict(managers)
        self.term: Term = (0, 0)
        self.welcomed: dict[Term, int] = {}
        """When the leader of each term greeted it first."""
        self.shares: dict[str, int] = {}
        """When it got its first slot of each action."""
        self._wanted: set[str] = set()
        self._held: dict[str, int] = {}
        self._action_of: dict[str, str] = {}
        self._versions: dict[str, pb.Version] = {}
        self._obeyed: pb.Version | None = None
        self._leaving = False
        self._queues: dict[str, asyncio.Queue[pb.AttachRequest]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._streams = itertools.count(1)
        self._turn = 0

    async def __aenter__(self) -> Observer:
        for name in self._managers:
            self._tasks.append(asyncio.create_task(self._keep(name), name=f"observe-{name}"))
        self._tasks.append(asyncio.create_task(self._report_for_ever(), name="observe-reports"))
        return self

    async def __aexit__(self, *problem: object) -> None:
        self._leaving, self._wanted = True, set()
        for container in self._held:
            self._held[container] = 0
        self._report()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.gather(*(queue.join() for queue in self._queues.values()))
                heard = self._turn
                while self._turn < heard + TURNS:  # by then the leader has read it
                    await self._next()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def want(self, action: str) -> None:
        """Asks for a slot of the action from now on."""
        self._wanted.add(action)
        self._report()

    async def until_term(self, newer_than: Term) -> int:
        """Waits for a leader's greeting in a newer term; when it came."""
        while self.term <= newer_than:
            await self._next()
        return min(at for term, at in self.welcomed.items() if term > newer_than)

    async def until_share(self, action: str) -> int:
        """Waits for a slot of the action; when it came."""
        while action not in self.shares:
            await self._next()
        return self.shares[action]

    async def _next(self) -> None:
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _keep(self, name: str) -> None:
        """Keeps a stream to one Manager open, for ever."""
        while True:
            async with grpc.aio.insecure_channel(self._managers[name]) as channel:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await self._attach(name, ManagerServiceStub(channel).Attach())
            await asyncio.sleep(RECONNECT_S)

    async def _attach(self, name: str, call: Any) -> None:
        queue = self._queues[name] = asyncio.Queue()
        writer = asyncio.create_task(_write(call, queue))
        try:
            opening = pb.Open(
                router=self.name,
                incarnation=self._incarnation,
                address=NOWHERE,
                stream=next(self._streams),
            )
            await call.write(pb.AttachRequest(open=opening))
            while isinstance(message := await call.read(), pb.AttachResponse):
                self._hear(message, queue)
        finally:
            writer.cancel()
            self._queues.pop(name, None)

    def _hear(self, message: pb.AttachResponse, queue: asyncio.Queue[pb.AttachRequest]) -> None:
        now, term = time.monotonic_ns(), (message.term.epoch, message.term.revision)
        if not message.HasField("term") or term < self.term:
            return  # a standby, or a leader of old
        if term > self.term:
            self.term = term
            self._obeyed = None
        self._turn = message.turn
        if message.HasField("welcome"):
            self.welcomed.setdefault(term, now)
            holdings = [pb.Holding(container_id=c, held=held) for c, held in self._held.items()]
            hello = pb.Hello(
                term=message.term,
                protocol_min=PROTOCOL,
                protocol_max=PROTOCOL,
                holdings=holdings,
            )
            queue.put_nowait(pb.AttachRequest(hello=hello))
        for order in message.orders:
            if order.HasField("container"):
                self._action_of[order.container_id] = order.container.action
            self._held[order.container_id] = 0 if self._leaving else order.target
            version = pb.Version(term=message.term, counter=order.counter)
            self._versions[order.container_id] = self._obeyed = version
            if order.target:
                self.shares.setdefault(self._action_of[order.container_id], now)
        for container in message.ended_containers:
            self._held.pop(container, None)
            self._versions.pop(container, None)
        if message.orders or message.HasField("welcome"):
            self._report()
        self._tell()

    def _report(self) -> None:
        """Says how things stand, on every stream; only the leader listens."""
        message = pb.AttachRequest(leaving=self._leaving)
        idle: dict[str, list[pb.IdleShare]] = {name: [] for name in self._wanted}
        for container, held in self._held.items():
            share = pb.IdleShare(container_id=container, idle=held)
            idle.setdefault(self._action_of[container], []).append(share)
            if container in self._versions:
                message.acknowledgements.add(
                    container_id=container, holding=held, version=self._versions[container]
                )
        for action, shares in idle.items():
            waiting = int(action in self._wanted and action not in self.shares)
            message.demand.add(action=action, waiting=waiting, idle=shares)
        if self._obeyed is not None:
            message.obeyed.CopyFrom(self._obeyed)
        for queue in self._queues.values():
            queue.put_nowait(message)

    async def _report_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self._report()


async def _write(call: Any, queue: asyncio.Queue[pb.AttachRequest]) -> None:
    while True:
        await call.write(await queue.get())
        queue.task_done()
