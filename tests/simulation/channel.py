"""gRPC's asyncio client over the simulated network: what `grpc.aio.insecure_channel` gives.

Only what Slotway uses, and as gRPC does it: messages are serialised, a call that is cut fails with
UNAVAILABLE, one that outlasts its deadline with DEADLINE_EXCEEDED, and a peer that is silent is
just that. A read after the end of a stream gives EOF, or raises the status.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from tests.simulation.loop import NODE
from tests.simulation.network import Connection, Network

BACKOFF_S = (0.1, 1.0)
Status = tuple[grpc.StatusCode, str, Any]
_OVER = "Can't write RPC message: already finished"


class Channel:
    """A client's connection to one address, made when it is needed."""

    def __init__(self, network: Network, target: str) -> None:
        self.network, self.target = network, target
        self.node = NODE.get()
        self._port = int(target.rpartition(":")[2])
        self._state = grpc.ChannelConnectivity.IDLE
        self._why = ""
        self._changed = asyncio.Event()
        self._backoff_s = BACKOFF_S[0]
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Cancels all calls, and lets go."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        for call in list(self._calls.values()):
            call.end((grpc.StatusCode.CANCELLED, "Channel closed", ()))
        if self._connection is not None:
            self._connection.close("the peer closed the connection", by=self._connection.client)
        self._enter(grpc.ChannelConnectivity.SHUTDOWN)

    # Connectivity.

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As gRPC's."""
        if try_to_connect:
            self._connect()
        return self._state

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        """As gRPC's."""
        while self._state is last:
            await self._changed.wait()

    @property
    def connected(self) -> Connection | None:
        """The connection, if there is one."""
        return self._connection

    async def connection(self) -> Connection:
        """The connection; raises ConnectionError with what is wrong."""
        while self._connection is None:
            self._connect()
            if self._state is grpc.ChannelConnectivity.TRANSIENT_FAILURE or self._closed:
                raise ConnectionError(self._why)
            await self._changed.wait()
        return self._connection

    def _connect(self) -> None:
        if self._state is grpc.ChannelConnectivity.IDLE and not self._closed:
            self._enter(grpc.ChannelConnectivity.CONNECTING)
            self._connecting = asyncio.create_task(self._dial(), name="dial")

    async def _dial(self) -> None:
        try:
            connection = await self.network.dial(self._port)
        except OSError as exc:
            self._why = f"failed to connect to all addresses; last error: {self.target}: {exc}"
            self._enter(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(BACKOFF_S[1], self._backoff_s * 1.6)
            self._enter(grpc.ChannelConnectivity.IDLE)
        else:
            self._backoff_s = BACKOFF_S[0]
            connection.client_end = self
            self._connection = connection
            self._enter(grpc.ChannelConnectivity.READY)

    def _enter(self, state: grpc.ChannelConnectivity) -> None:
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()

    def broken(self, why: str) -> None:
        """See `network.Endpoint`."""
        self._connection = None
        for call in list(self._calls.values()):
            call.end((grpc.StatusCode.UNAVAILABLE, why, ()))
        if not self._closed:
            self._enter(grpc.ChannelConnectivity.IDLE)

    # Calls.

    def start(self, call: Call) -> int:
        """A call begins; returns its number on this channel."""
        number = next(self._numbers)
        self._calls[number] = call
        return number

    def over(self, number: int) -> None:
        """A call is over."""
        self._calls.pop(number, None)

    def received(self, number: int, message: bytes) -> None:
        """A message for a call."""
        call = self._calls.get(number)
        if call is not None:
            call.received(message)

    def ended(self, number: int, status: Status) -> None:
        """The server's status for a call."""
        call = self._calls.get(number)
        if call is not None:
            call.end(status)

    def unary_unary(self, path: str, serialize: Any = None, parse: Any = None, **more: Any) -> Any:
        """A method of one request and one answer."""
        serialize = serialize or more["request_serializer"]
        parse = parse or more["response_deserializer"]

        async def method(request: Any, *, timeout: float = 0, metadata: Any = ()) -> Any:  # noqa: ASYNC109
            call = Call(self, path, serialize, parse, timeout, metadata)
            return await call.ask(request)

        return method

    def stream_stream(self, path: str, **more: Any) -> Callable[..., Call]:
        """A method of streams both ways."""
        serialize, parse = more["request_serializer"], more["response_deserializer"]

        def method(*, timeout: float = 0, metadata: Any = ()) -> Call:
            return Call(self, path, serialize, parse, timeout, metadata)

        return method

    unary_stream = stream_stream


class Call:
    """One call, of any kind."""

    def __init__(
        self,
        channel: Channel,
        path: str,
        serialize: Callable[[Any], bytes],
        parse: Callable[[bytes], Any],
        timeout_s: float,
        metadata: Any,
    ) -> None:
        self._channel, self._path, self._metadata = channel, path, metadata
        self._serialize, self._parse = serialize, parse
        self._inbox: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._status: Status | None = None
        self._cancelled = False
        self._connection: Connection | None = None
        self._number = channel.start(self)
        self._opening: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s:
            self._timer = asyncio.get_running_loop().call_later(timeout_s, self._expire)
        connection = channel.connected
        if connection is not None:
            self._open_on(connection)
        else:
            self._opening = asyncio.create_task(self._open(), name="call-open")

    async def _open(self) -> None:
        try:
            connection = await self._channel.connection()
        except ConnectionError as exc:
            self.end((grpc.StatusCode.UNAVAILABLE, str(exc), ()))
            return
        if self._status is None:
            self._open_on(connection)

    def _open_on(self, connection: Connection) -> None:
        self._connection = connection
        end, number, path, metadata = self._server, self._number, self._path, self._metadata
        connection.up.send(lambda: end.opened(number, path, metadata))

    @property
    def _server(self) -> Any:
        assert self._connection is not None
        return self._connection.server_end

    def _expire(self) -> None:
        self._tell_server()
        self.end((grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", ()))

    def received(self, message: bytes) -> None:
        """A message came."""
        self._inbox.append(message)
        self._filled.set()

    def end(self, status: Status) -> None:
        """The call is over."""
        if self._status is None:
            self._status = status
            self._filled.set()
            self._channel.over(self._number)
            if self._opening is not None:
                self._opening.cancel()
            if self._timer is not None:
                self._timer.cancel()

    def _tell_server(self) -> None:
        if self._connection is not None and self._status is None:
            end, number = self._server, self._number
            self._connection.up.send(lambda: end.cancelled(number))

    def cancel(self) -> bool:
        """As gRPC's."""
        if self._status is not None:
            return False
        self._cancelled = True
        self._tell_server()
        self.end((grpc.StatusCode.CANCELLED, "Locally cancelled by application!", ()))
        return True

    def done(self) -> bool:
        """As gRPC's."""
        return self._status is not None

    def _raise(self) -> None:
        assert self._status is not None
        if self._cancelled:
            raise asyncio.CancelledError
        code, details, trailers = self._status
        if code is not grpc.StatusCode.OK:
            none = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(code, none, grpc.aio.Metadata(*trailers), details)

    async def write(self, message: Any) -> None:
        """As gRPC's: raises InvalidStateError after the end."""
        if self._status is not None:
            raise asyncio.InvalidStateError(_OVER)
        if self._opening is not None and self._connection is None:
            await asyncio.wait({self._opening})
        if self.done():
            self._raise()
            raise asyncio.InvalidStateError(_OVER)
        self._send(message)

    def _send(self, message: Any) -> None:
        assert self._connection is not None
        end, number, data = self._server, self._number, self._serialize(message)
        self._connection.up.send(lambda: end.received(number, data))

    async def done_writing(self) -> None:
        """As gRPC's."""
        if self._status is None and self._connection is not None:
            end, number = self._server, self._number
            self._connection.up.send(lambda: end.half_closed(number))

    async def read(self) -> Any:
        """As gRPC's; cancelling it ends the call."""
        try:
            while not self._inbox:
                if self._status is not None:
                    self._raise()
                    return grpc.aio.EOF
                self._filled.clear()
                await self._filled.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self._parse(self._inbox.popleft())

    async def ask(self, request: Any) -> Any:
        """The whole of a unary call."""
        try:
            if self._opening is not None and self._connection is None:
                await asyncio.wait({self._opening})
            if self._status is None:
                self._send(request)
                await self.done_writing()
            while self._status is None:
                self._filled.clear()
                await self._filled.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._raise()
        return self._parse(self._inbox.popleft())
