"""A Router that speaks Attach and does what a test says: its requests are numbers."""

from __future__ import annotations

import asyncio
import itertools
from typing import Self

import grpc.aio

from slotway.v1 import manager_pb2 as pb
from slotway.v1.manager_pb2_grpc import ManagerServiceStub

WAIT_S = 15.0


class ScriptedRouter:
    """Obeys at once, and reports after every change, unless told otherwise."""

    def __init__(self, name: str, manager: str, incarnation: str = "", address: str = "") -> None:
        self.name, self.manager = name, manager
        self.incarnation = incarnation or f"{name}-1"
        self.address = address or "127.0.0.1:1"
        self.waiting: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.running: dict[str, int] = {}
        self.action_of: dict[str, str] = {}
        self.peers: dict[str, list[str]] = {}
        self.refusals: list[pb.Refusal] = []
        self.ended: list[str] = []
        self.messages: list[pb.AttachResponse] = []
        self.versions: dict[str, pb.Version] = {}
        self.obeyed: pb.Version | None = None
        self.term: pb.Term | None = None
        self.turn = 0
        self.error: grpc.aio.AioRpcError | None = None
        self.paused = False
        """Reads, but neither obeys nor says anything."""
        self.dispatches = True
        """Waiting requests take idle slots."""
        self.opening: pb.Open | None = None
        """Said instead of the proper one."""
        self.protocols = (1, 1)
        self._said: dict[str, tuple[int, dict[str, int]]] = {}
        self._streams = itertools.count(1)
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._out: asyncio.Queue[pb.AttachRequest] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self.open()
        await self.until(lambda: self.term is not None)
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self.close()

    def open(self) -> None:
        """Opens a new stream; what is held stays."""
        self.term, self.error, self._out = None, None, asyncio.Queue()
        self._task = asyncio.create_task(self._live(), name=self.name)

    async def close(self) -> None:
        """Breaks the stream, as a crash does."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def _live(self) -> None:
        async with grpc.aio.insecure_channel(self.manager) as channel:
            call = ManagerServiceStub(channel).Attach()
            opening = pb.Open(
                router=self.name,
                incarnation=self.incarnation,
                address=self.address,
                stream=next(self._streams),
            )
            writer = asyncio.create_task(self._write(call))
            try:
                await call.write(pb.AttachRequest(open=self.opening or opening))
                while isinstance(message := await call.read(), pb.AttachResponse):
                    await self._hear(message)
                raise (
                    AssertionError("the stream ended")
                    if await call.code() is None
                    else (ConnectionError("the stream ended"))
                )
            except grpc.aio.AioRpcError as exc:
                self.error = exc
            finally:
                writer.cancel()
                async with self._changed:
                    self.term = None
                    self._changed.notify_all()

    async def _write(self, call: object) -> None:
        while True:
            await call.write(await self._out.get())  # type: ignore[attr-defined]

    async def _hear(self, message: pb.AttachResponse) -> None:
        async with self._changed:
            self.messages.append(message)
            self.turn = message.turn
            if message.HasField("welcome"):
                self.term = message.term
                self._said.clear()
                holdings = [
                    pb.Holding(container_id=c, held=n, running=self.running.get(c, 0))
                    for c, n in self.held.items()
                ]
                hello = pb.Hello(
                    term=message.term,
                    protocol_min=self.protocols[0],
                    protocol_max=self.protocols[1],
                    holdings=holdings,
                )
                self._out.put_nowait(pb.AttachRequest(hello=hello))
            if not self.paused:
                for order in message.orders:
                    self._obey(message.term, order)
                for container in message.ended_containers:
                    self.ended.append(container)
                    for table in (self.held, self.running, self.versions):
                        table.pop(container, None)
                for told in message.peers:
                    self.peers[told.action] = [peer.incarnation for peer in told.peers]
                self.refusals.extend(message.refusals)
                for refusal in message.refusals:
                    self.waiting[refusal.action] = 0
                self.report()
            self._changed.notify_all()

    def _obey(self, term: pb.Term, order: pb.ShareOrder) -> None:
        if order.HasField("container"):
            self.action_of[order.container_id] = order.container.action
        assert order.container_id in self.action_of or not order.target
        self.held[order.container_id] = order.target
        version = pb.Version(term=term, counter=order.counter)
        self.versions[order.container_id] = self.obeyed = version

    def report(self) -> None:
        """Dispatches, and says how things stand."""
        if self.paused or self.term is None:
            return
        idle: dict[str, list[pb.IdleShare]] = {name: [] for name in self.waiting}
        message = pb.AttachRequest(turn=self.turn)
        for container, held in self.held.items():
            name, running = self.action_of.get(container, ""), self.running.get(container, 0)
            step = min(max(0, held - running), self.waiting.get(name, 0))
            if step and self.dispatches:
                running += step
                self.waiting[name] -= step
                self.running[container] = running
            idle.setdefault(name, []).append(
                pb.IdleShare(container_id=container, idle=max(0, held - running))
            )
            if running <= held and container in self.versions:
                message.acknowledgements.add(
                    container_id=container, holding=held, version=self.versions[container]
                )
        for name, shares in idle.items():
            said = (self.waiting.get(name, 0), {one.container_id: one.idle for one in shares})
            if self._said.get(name) == said and not said[0]:
                continue
            self._said[name] = said
            message.demand.add(action=name, waiting=self.waiting.get(name, 0), idle=shares)
        if self.obeyed is not None:
            message.obeyed.CopyFrom(self.obeyed)
        self._out.put_nowait(message)

    def send(self, message: pb.AttachRequest) -> None:
        """Says something of the test's own."""
        self._out.put_nowait(message)

    async def arrive(self, action: str, count: int = 1) -> None:
        """Requests come."""
        self.waiting[action] = self.waiting.get(action, 0) + count
        self.report()

    async def finish(self, count: int = 1_000_000) -> None:
        """Requests end."""
        for container in self.running:
            step = min(count, self.running[container])
            self.running[container] -= step
            count -= step
        self.report()

    async def give_back(self) -> None:
        """Gives up every slot that idles."""
        for container in self.held:
            self.held[container] = min(self.held[container], self.running.get(container, 0))
        self.report()

    def total(self, action: str) -> int:
        """Slots held."""
        return sum(n for c, n in self.held.items() if self.action_of.get(c) == action)

    async def until(self, condition: object) -> None:
        """Waits until a message made the condition true."""
        assert callable(condition)
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(condition)
