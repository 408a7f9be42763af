"""gRPC's asyncio server over the simulated network: what `grpc.aio.server` gives.

Runs the servicers that Slotway registers, unchanged: one task per call, cancelled when its client
has cancelled or its connection is over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import grpc
import grpc.aio

from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Connection, Network

Handlers = Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]


class Aborted(grpc.aio.AbortError):
    """A servicer ended its call with a status."""


class Server:
    """One server of one process."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self.ends: set[ServerEnd] = set()
        self._port = 0

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """Everything comes as registered methods as well."""

    def add_registered_method_handlers(self, service: str, handlers: Handlers) -> None:
        """As gRPC's."""
        for name, handler in handlers.items():
            self.methods[f"/{service}/{name}"] = handler

    def add_insecure_port(self, address: str) -> int:
        """As gRPC's; raises RuntimeError if the port is taken."""
        try:
            self._port = self.network.listen(int(address.rpartition(":")[2]), self._accept)
        except OSError as exc:
            raise RuntimeError(str(exc)) from exc
        return self._port

    async def start(self) -> None:
        """It listens already."""

    async def stop(self, grace: float | None) -> None:
        """Listens no more, gives calls so long to end, and cuts them."""
        self.network.close(self._port)
        tasks = [task for end in self.ends for task in end.tasks()]
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        for end in sorted(self.ends, key=lambda end: end.connection.number):
            end.connection.close("the server stopped", by=end.connection.server)

    def _accept(self, connection: Connection) -> None:
        connection.server_end = end = ServerEnd(self, connection)
        self.ends.add(end)


class ServerEnd:
    """One client's connection."""

    def __init__(self, server: Server, connection: Connection) -> None:
        self.server, self.connection = server, connection
        self._calls: dict[int, ServerCall] = {}

    def __hash__(self) -> int:
        return self.connection.number

    def tasks(self) -> list[asyncio.Task[None]]:
        """Of all calls that run."""
        return [call.task for call in self._calls.values() if call.task is not None]

    def opened(self, number: int, path: str, metadata: Any) -> None:
        """A call begins."""
        handler = self.server.methods.get(path)
        call = ServerCall(self.connection, number, metadata)
        if handler is None:
            call.finish(grpc.StatusCode.UNIMPLEMENTED, f"no method {path}")
            return
        self._calls[number] = call
        call.task = asyncio.create_task(call.run(handler), name=path)
        call.task.add_done_callback(lambda _: self._calls.pop(number, None))

    def received(self, number: int, message: bytes) -> None:
        """A message of a call."""
        call = self._calls.get(number)
        if call is not None:
            call.inbox.append(message)
            call.filled.set()

    def half_closed(self, number: int) -> None:
        """Its client writes no more."""
        call = self._calls.get(number)
        if call is not None:
            call.closed = True
            call.filled.set()

    def cancelled(self, number: int) -> None:
        """Its client has cancelled it."""
        call = self._calls.get(number)
        if call is not None and call.task is not None:
            call.task.cancel()

    def broken(self, why: str) -> None:
        """See `network.Endpoint`."""
        self.server.ends.discard(self)
        for call in list(self._calls.values()):
            if call.task is not None:
                call.task.cancel()


class ServerCall:
    """One call; it is also the servicer's context and the iterator over its requests."""

    def __init__(self, connection: Connection, number: int, metadata: Any) -> None:
        self.connection, self.number, self.metadata = connection, number, metadata
        self.inbox: deque[bytes] = deque()
        self.filled = asyncio.Event()
        self.closed = False
        self.task: asyncio.Task[None] | None = None
        self._parse: Any = None

    async def run(self, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
        """Has the servicer serve it."""
        self._parse, serialize = handler.request_deserializer, handler.response_serializer
        assert serialize is not None
        work: Any = handler.unary_unary or handler.stream_stream or handler.unary_stream
        request: Any = self if handler.request_streaming else await self._next()
        code, details, trailers = grpc.StatusCode.OK, "", ()
        try:
            if handler.response_streaming:
                answers = work(request, self)
                try:
                    async for answer in answers:
                        self._send(serialize(answer))
                finally:
                    await answers.aclose()
            else:
                self._send(serialize(await work(request, self)))
        except Aborted as exc:
            code, details, trailers = exc.args
        except Exception as exc:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.failures.append(f"a servicer failed: {exc!r}")
            code, details = grpc.StatusCode.UNKNOWN, repr(exc)
        self.finish(code, details, trailers)

    def _send(self, message: bytes) -> None:
        end, number = self.connection.client_end, self.number
        self.connection.down.send(lambda: end.received(number, message))  # type: ignore[union-attr]

    def finish(self, code: grpc.StatusCode, details: str, trailers: Any = ()) -> None:
        """Ends the call with a status."""
        end, number, status = self.connection.client_end, self.number, (code, details, trailers)
        self.connection.down.send(lambda: end.ended(number, status))  # type: ignore[union-attr]

    async def _next(self) -> Any:
        while not self.inbox:
            if self.closed:
                raise StopAsyncIteration
            self.filled.clear()
            await self.filled.wait()
        return self._parse(self.inbox.popleft())

    def __aiter__(self) -> ServerCall:
        return self

    async def __anext__(self) -> Any:
        return await self._next()

    # The context.

    async def abort_with_status(self, status: Any) -> NoReturn:
        """As gRPC's."""
        raise Aborted(status.code, status.details, tuple(status.trailing_metadata or ()))

    async def abort(self, code: grpc.StatusCode, details: str = "", trailers: Any = ()) -> NoReturn:
        """As gRPC's."""
        raise Aborted(code, details, tuple(trailers))

    def invocation_metadata(self) -> Any:
        """As gRPC's."""
        return self.metadata
