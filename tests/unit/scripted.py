"""Doubles for the Router's tests: a data plane and a Manager that do what a test tells them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from slotway.router.plane import Term, Version
from slotway.v1 import manager_pb2 as pb
from slotway.v1.manager_pb2_grpc import (
    ManagerServiceServicer,
    add_ManagerServiceServicer_to_server,
)

SECONDS_MAX = 10.0
"""No test waits longer for anything."""


@dataclass
class ScriptedEvents:
    acknowledgements: list[tuple[str, int, Version]] = field(default_factory=list)
    demand_rose: bool = False
    demand_changed: bool = False
    troubles: list[tuple[str, str, int]] = field(default_factory=list)


class ScriptedPlane:
    """Obeys as the real one does, as far as a session can tell, and writes down what it is told."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        self.streams: dict[str, int] = {}
        self.term: Term = (0, 0)
        self.held: dict[str, int] = {}
        self.actions: dict[str, str] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.waiting: dict[str, int] = {}
        self.obeyed: Version | None = None
        self.versions: dict[str, Version] = {}
        self.demands = 0
        self._events = ScriptedEvents()
        self._called = asyncio.Event()

    def close(self) -> None:
        os.close(self.descriptor)

    def happen(self, **what: Any) -> None:
        """Something to be reported happens."""
        for name, value in what.items():
            before = getattr(self._events, name)
            setattr(self._events, name, before + value if isinstance(value, list) else value)
        os.eventfd_write(self.descriptor, 1)

    async def called(self, name: str) -> tuple[Any, ...]:
        """The first call of this name that was not asked for before."""
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                for call in self.calls:
                    if call[0] == name:
                        self.calls.remove(call)
                        return call
                self._called.clear()
                await self._called.wait()

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        self._called.set()

    def fileno(self) -> int:
        return self.descriptor

    def open_stream(self, manager: str, stream: int) -> None:
        assert stream > self.streams.get(manager, 0), "stream numbers grow"
        self.streams[manager] = stream
        self._note("open_stream", manager, stream)

    def close_stream(self, manager: str, stream: int) -> None:
        if self.streams.get(manager) == stream:
            self.streams[manager] = stream  # stays the newest; a closed one obeys nothing
        self._note("close_stream", manager, stream)

    def welcome(self, manager: str, stream: int, term: Term) -> list[tuple[str, int, int]] | None:
        if term < self.term or self.streams.get(manager) != stream:
            self._note("stale_welcome", manager, term)
            return None
        self.term = term
        return [(container, held, 0) for container, held in self.held.items()]

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
        self._note("order", manager, version, container, target, action, address, timeout_ms)
        if capacity > 1000:
            raise ValueError("capacity out of range")
        if version[:2] < self.term or version <= self.versions.get(container, (0, 0, 0)):
            return False
        lowered = target < self.held.get(container, 0)
        self.held[container], self.actions[container] = target, action
        self.versions[container] = self.obeyed = version
        if target == 0:
            del self.held[container]
        if lowered or target == 0:
            self.happen(acknowledgements=[(container, target, version)])
        return True

    def ended(self, manager: str, stream: int, term: Term, container: str, how: str = "") -> bool:
        self._note("ended", container)
        return self.held.pop(container, None) is not None

    def peers(self, action: str, peers: Sequence[tuple[str, str, int]]) -> None:
        self._note("peers", action, list(peers))

    def drop_peers(self) -> None:
        self._note("drop_peers")

    def refuse(self, action: str, reason: str, message: str, retry_ms: int) -> None:
        self._note("refuse", action, reason, message, retry_ms)

    def give_back(self, idle_ms: int) -> None:
        self._note("give_back", idle_ms)
        if idle_ms == 0:
            for container, held in self.held.items():
                if held:
                    self.held[container] = 0
                    self.happen(acknowledgements=[(container, 0, self.versions[container])])

    def events(self) -> ScriptedEvents:
        events, self._events = self._events, ScriptedEvents()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
        return events

    def demand(self) -> list[tuple[str, int, list[tuple[str, int]]]]:
        self.demands += 1
        return [(action, waiting, []) for action, waiting in self.waiting.items()]

    def holdings(self) -> list[tuple[str, str, int, int]]:
        return [(c, self.actions[c], held, 0) for c, held in self.held.items()]


class Stream:
    """One Attach stream at the scripted Manager."""

    def __init__(self, opened: pb.Open, context: Any) -> None:
        self.opened = opened
        self.received: deque[pb.AttachRequest] = deque()
        self.over = asyncio.Event()
        self._context = context
        self._arrived = asyncio.Event()

    async def send(self, term: Term, **fields: Any) -> None:
        """Sends a message of this term."""
        message = pb.AttachResponse(term=pb.Term(epoch=term[0], revision=term[1]), **fields)
        await self._context.write(message)

    async def welcome(self, term: Term, *, period_ms: int = 60_000) -> pb.Hello:
        """Greets, and returns the Hello that answers."""
        welcome = pb.Welcome(protocol_min=1, protocol_max=1, manager="m")
        welcome.period.FromMilliseconds(period_ms)
        await self.send(term, welcome=welcome)
        return (await self.next("hello")).hello

    def arrive(self, message: pb.AttachRequest) -> None:
        self.received.append(message)
        self._arrived.set()

    async def next(self, what: str = "") -> pb.AttachRequest:
        """The next message, or the next one with the field `what`."""
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                while self.received:
                    message = self.received.popleft()
                    if not what or what in {field.name for field, _ in message.ListFields()}:
                        return message
                self._arrived.clear()
                await self._arrived.wait()


class ScriptedManager(ManagerServiceServicer):
    """A Manager's server whose streams a test holds in its hands."""

    def __init__(self) -> None:
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.address = ""
        self.server: grpc.aio.Server | None = None

    async def Attach(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        first = await anext(request_iterator)
        stream = Stream(first.open, context)
        self.streams.put_nowait(stream)
        self.reading = asyncio.create_task(self._read(stream, request_iterator))
        await stream.over.wait()
        self.reading.cancel()

    async def _read(self, stream: Stream, requests: AsyncIterator[pb.AttachRequest]) -> None:
        try:
            async for message in requests:
                stream.arrive(message)
        finally:
            stream.over.set()

    async def stream(self) -> Stream:
        """The next stream that a Router opens."""
        async with asyncio.timeout(SECONDS_MAX):
            return await self.streams.get()

    async def start(self, address: str = "127.0.0.1:0") -> None:
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_ManagerServiceServicer_to_server(self, self.server)
        port = self.server.add_insecure_port(address)
        self.address = f"127.0.0.1:{port}"
        await self.server.start()

    async def stop(self) -> None:
        assert self.server is not None
        await self.server.stop(None)


@asynccontextmanager
async def scripted_manager() -> AsyncIterator[ScriptedManager]:
    manager = ScriptedManager()
    await manager.start()
    try:
        yield manager
    finally:
        await manager.stop()
