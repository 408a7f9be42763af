"""What the front door does not serve itself reaches the Python server and comes back unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from .door import PATIENCE_S, Door, open_door, refused

Context = grpc.aio.ServicerContext[bytes, bytes]
SERVICE = "test.Echo"


class Echo:
    """A generic service of all four kinds on bytes; tells when a call was cancelled."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.begun = asyncio.Event()
        self.remaining_s: float | None = None

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Hang": grpc.unary_unary_rpc_method_handler(self.hang),
            "Down": grpc.unary_stream_rpc_method_handler(self.down),
            "Up": grpc.stream_unary_rpc_method_handler(self.up),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
        }

    async def unary(self, request: bytes, context: Context) -> bytes:
        asked = dict(context.invocation_metadata() or ())
        await context.send_initial_metadata((("first", str(asked["asked"])),))
        context.set_trailing_metadata((("last", "two"), ("raw-bin", b"\0\xff")))
        return request

    async def fail(self, request: bytes, context: Context) -> bytes:
        context.set_trailing_metadata((("why", "because"),))
        await context.abort(grpc.StatusCode.ABORTED, "no: ü %")
        raise AssertionError

    async def hang(self, request: bytes, context: Context) -> bytes:
        self.remaining_s = context.time_remaining()
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return request

    async def down(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    async def up(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        return b"".join([request async for request in requests])

    async def both(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Echo]:
    echo = Echo()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handler = grpc.method_handlers_generic_handler(SERVICE, echo.handlers())
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{tmp_path}/python.sock")
    await server.start()
    yield echo
    await server.stop(None)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path / "python.sock") as door:
        yield door


@pytest.fixture
async def channel(door: Door) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(door.address, options) as channel:
        yield channel


def unary_unary(
    channel: grpc.aio.Channel, name: str
) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary(f"/{SERVICE}/{name}")


def unary_stream(
    channel: grpc.aio.Channel, name: str
) -> grpc.aio.UnaryStreamMultiCallable[bytes, bytes]:
    return channel.unary_stream(f"/{SERVICE}/{name}")


def stream_unary(
    channel: grpc.aio.Channel, name: str
) -> grpc.aio.StreamUnaryMultiCallable[bytes, bytes]:
    return channel.stream_unary(f"/{SERVICE}/{name}")


def stream_stream(
    channel: grpc.aio.Channel, name: str
) -> grpc.aio.StreamStreamMultiCallable[bytes, bytes]:
    return channel.stream_stream(f"/{SERVICE}/{name}")


async def test_metadata_and_trailers_cross(echo: Echo, channel: grpc.aio.Channel) -> None:
    call = unary_unary(channel, "Unary")(b"hello", metadata=(("asked", "one"),), timeout=PATIENCE_S)
    assert await call == b"hello"
    assert ("first", "one") in tuple(await call.initial_metadata())
    trailing = tuple(await call.trailing_metadata())
    assert ("last", "two") in trailing
    assert ("raw-bin", b"\0\xff") in trailing


async def test_an_error_crosses_with_its_trailers(echo: Echo, channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await unary_unary(channel, "Fail")(b"", timeout=PATIENCE_S)
    assert error.value.code() is grpc.StatusCode.ABORTED
    assert error.value.details() == "no: ü %"
    assert ("why", "because") in tuple(error.value.trailing_metadata())
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await unary_unary(channel, "Nothing")(b"", timeout=PATIENCE_S)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_streams_cross_both_ways(echo: Echo, channel: grpc.aio.Channel) -> None:
    down = unary_stream(channel, "Down")(b"500", timeout=PATIENCE_S)
    assert [part async for part in down] == [b"%d" % number for number in range(500)]
    parts = [bytes([number % 256]) * 1000 for number in range(300)]
    up = stream_unary(channel, "Up")(iter(parts), timeout=PATIENCE_S)
    assert await up == b"".join(parts)
    both = stream_stream(channel, "Both")(timeout=PATIENCE_S)
    for number in range(50):  # each answer comes before the next question
        await both.write(b"%d" % number)
        assert await both.read() == b"%d" % number
    await both.done_writing()
    assert await both.read() is grpc.aio.EOF
    assert await both.code() is grpc.StatusCode.OK


async def test_more_than_the_windows_hold_crosses(echo: Echo, channel: grpc.aio.Channel) -> None:
    large = b"x" * 20_000_000
    call = stream_stream(channel, "Both")(timeout=3 * PATIENCE_S)
    await call.write(large)
    await call.done_writing()
    assert await call.read() == large


async def test_a_deadline_is_told_and_cancels(echo: Echo, channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await unary_unary(channel, "Hang")(b"", timeout=0.3)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert echo.remaining_s is not None
    assert 0 < echo.remaining_s < 0.3
    await asyncio.wait_for(echo.cancelled.wait(), PATIENCE_S)


async def test_who_leaves_cancels_the_call_behind(echo: Echo, channel: grpc.aio.Channel) -> None:
    call = unary_unary(channel, "Hang")(b"")
    await asyncio.wait_for(echo.begun.wait(), PATIENCE_S)
    call.cancel()
    await asyncio.wait_for(echo.cancelled.wait(), PATIENCE_S)


async def test_a_server_that_is_away_is_unavailable_until_it_is_back(
    door: Door, channel: grpc.aio.Channel, tmp_path: Path
) -> None:
    call = unary_unary(channel, "Up")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(b"", timeout=PATIENCE_S)
    assert refused(error.value).code is grpc.StatusCode.UNAVAILABLE
    for _ in range(2):  # it comes, goes, and comes again
        server = grpc.aio.server()
        handler = grpc.method_handlers_generic_handler(SERVICE, Echo().handlers())
        server.add_generic_rpc_handlers((handler,))
        server.add_insecure_port(f"unix:{tmp_path}/python.sock")
        await server.start()
        assert await call(b"again", timeout=PATIENCE_S) == b"again"
        await server.stop(None)
