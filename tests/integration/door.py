"""What a front door needs around it: a container that does what its payload says, a data plane."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from slotway._slotcore import DataPlane
from slotway.v1 import router_pb2, router_pb2_grpc

ACTION = "guest/work"
PATIENCE_S = 10.0


@dataclass
class Container:
    """An HTTP server on a Unix socket; counts a request before it does anything else."""

    path: Path
    running: int = 0
    highest: int = 0
    arrived: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    server: asyncio.Server | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_unix_server(self._accept, self.path, backlog=1024)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        assert self.server is not None
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until the condition holds."""
        async with asyncio.timeout(PATIENCE_S), self.changed:
            await self.changed.wait_for(holds)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while await self._run(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            writer.close()

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        await self._count(1)
        self.bodies.append(body)
        try:
            status, answer = await self._do(body["value"])
        finally:
            await self._count(-1)
        if answer is None:
            return False
        writer.write(
            b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(answer), answer)
        )
        await writer.drain()
        return True

    async def _count(self, change: int) -> None:
        self.running += change
        self.arrived += change > 0
        self.highest = max(self.highest, self.running)
        async with self.changed:
            self.changed.notify_all()

    async def _do(self, value: dict[str, Any]) -> tuple[int, bytes | None]:
        match value.get("do"):
            case "hold":
                await self.gate.wait()
            case "sleep":
                await asyncio.sleep(value["seconds"])
            case "break":
                return 0, None
            case "raise":
                return 502, b'{"error":"it was raised"}'
            case "garble":
                return 200, b"not JSON"
            case "grow":
                return 200, json.dumps({"grown": "x" * value["bytes"]}).encode()
        return 200, json.dumps({"value": value}).encode()


@dataclass
class Door:
    """A started data plane with a session to one Manager that leads."""

    plane: DataPlane
    counter: int = 0
    troubles: list[tuple[str, str, int]] = field(default_factory=list)
    acknowledgements: list[tuple[str, int]] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        return self.plane.address

    def give(
        self,
        container: Container | str,
        slots: int,
        *,
        id: str = "c-1",
        action: str = ACTION,
        capacity: int = 100,
        timeout_ms: int = 60_000,
        parameters: bytes = b"",
    ) -> None:
        """Orders an absolute share."""
        self.counter += 1
        address = container if isinstance(container, str) else container.address
        version = (1, 1, self.counter)
        spec = (action, 1, address, capacity, timeout_ms, parameters)
        assert self.plane.order("m", 1, version, id, slots, *spec)

    def _take(self) -> None:
        events = self.plane.events()
        self.troubles += events.troubles
        self.acknowledgements += [(name, slots) for name, slots, _ in events.acknowledgements]
        self.ready.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until the condition holds; looks whenever the data plane has something to tell."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self.ready.clear()
                await self.ready.wait()

    async def until_idle(self) -> None:
        """Waits until nothing runs, whoever has hung up."""
        async with asyncio.timeout(PATIENCE_S):
            while any(running for *_, running in self.plane.holdings()):  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def until_waiting(self, count: int) -> None:
        """Waits until so many requests wait. Nothing tells that at once: so it is asked for."""
        async with asyncio.timeout(PATIENCE_S):
            while self.waiting() != count:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    def waiting(self, action: str = ACTION) -> int:
        """Requests that wait, as they would be reported."""
        return sum(waiting for name, waiting, _ in self.plane.demand() if name == action)


@asynccontextmanager
async def open_door(
    upstream: Path, incarnation: str = "r-1", **settings: Any
) -> AsyncIterator[Door]:
    """A data plane on a free port."""
    plane = DataPlane(
        listen="127.0.0.1:0", upstream=str(upstream), incarnation=incarnation, **settings
    )
    plane.start()
    plane.open_stream("m", 1)
    assert plane.welcome("m", 1, (1, 1)) == []
    door = Door(plane)
    loop = asyncio.get_running_loop()
    loop.add_reader(plane.fileno(), door._take)
    try:
        yield door
    finally:
        loop.remove_reader(plane.fileno())
        await asyncio.to_thread(plane.close)


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[router_pb2_grpc.RouterServiceAsyncStub]:
    """A client with a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        yield router_pb2_grpc.RouterServiceStub(channel)


def invoke(
    client: router_pb2_grpc.RouterServiceAsyncStub,
    do: str = "echo",
    *,
    action: str = ACTION,
    timeout: float | None = PATIENCE_S,
    **value: Any,
) -> grpc.aio.UnaryUnaryCall[router_pb2.InvokeRequest, router_pb2.InvokeResponse]:
    """Begins a call whose payload tells the container what to do."""
    payload = json.dumps({"do": do, **value}).encode()
    return client.Invoke(router_pb2.InvokeRequest(action=action, payload=payload), timeout=timeout)


@dataclass(frozen=True)
class Refused:
    """What a failed call was told."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]
    retry_s: float | None


def refused(error: grpc.aio.AioRpcError) -> Refused:
    """Reads the details of an error."""
    status = status_pb2.Status()
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            status.ParseFromString(value)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    retry_s = None
    for detail in status.details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            retry_s = retry.retry_delay.ToTimedelta().total_seconds()
    assert info.domain == "slotway"
    return Refused(error.code(), info.reason, status.message, dict(info.metadata), retry_s)
