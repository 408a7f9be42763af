"""What the front door says of requests that it does not take."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from slotway._slotcore import DataPlane
from slotway.v1 import router_pb2, router_pb2_grpc

from .door import ACTION, PATIENCE_S, Container, Door, connect, invoke, open_door, refused

if TYPE_CHECKING:
    from .test_front_door import Client


@pytest.mark.parametrize(
    ("request_", "field", "reason"),
    [
        ({"action": "nobody"}, "action", "INVALID_FIELD"),
        ({"action": "a/b/c"}, "action", "INVALID_FIELD"),
        ({"action": "a/-b"}, "action", "INVALID_FIELD"),
        ({"activation_id": 'x"y'}, "activation_id", "INVALID_FIELD"),
        ({"activation_id": "x" * 65}, "activation_id", "INVALID_FIELD"),
        ({"payload": b"[1]"}, "payload", "INVALID_PAYLOAD"),
        ({"payload": b'{"a":1},"deadline":"0"'}, "payload", "INVALID_PAYLOAD"),
        ({"payload": b'{"a":' * 65 + b"1" + b"}" * 65}, "payload", "INVALID_PAYLOAD"),
        ({"payload": b'{"a":"\xff"}'}, "payload", "INVALID_PAYLOAD"),
    ],
)
async def test_what_is_wrong_with_a_request_is_named(
    client: Client,
    door: Door,
    container: Container,
    request_: dict[str, Any],
    field: str,
    reason: str,
) -> None:
    door.give(container, 1)
    request = router_pb2.InvokeRequest(**{"action": ACTION, "payload": b"{}", **request_})
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.Invoke(request, timeout=PATIENCE_S)
    told = refused(error.value)
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert told.metadata.get("field") == field
    assert container.arrived == 0


async def test_limits_on_sizes(tmp_path: Path, container: Container) -> None:
    limits: dict[str, Any] = {"request_bytes_max": 100_000, "response_bytes_max": 200_000}
    async with open_door(tmp_path / "p.sock", **limits) as door, connect(door.address) as client:
        door.give(container, 1)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await invoke(client, filler="x" * 100_000)
        told = refused(error.value)
        assert (told.code.name, told.reason) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")
        assert told.metadata == {"limit_bytes": "100000"}
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await invoke(client, "grow", bytes=200_001)
        assert refused(error.value).reason == "RESULT_TOO_LARGE"
        answer = await invoke(client, "grow", bytes=190_000, filler="x" * 90_000)
        assert len(answer.result) > 190_000


async def test_a_compressed_message_is_refused_clearly(door: Door) -> None:
    compressed = grpc.aio.insecure_channel(door.address, compression=grpc.Compression.Gzip)
    async with compressed as channel:
        client = router_pb2_grpc.RouterServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await invoke(client, filler="x" * 1000)
    told = refused(error.value)
    assert (told.code.name, told.reason) == ("UNIMPLEMENTED", "UNSUPPORTED")
    assert "identity" in told.message


async def test_what_is_no_grpc_is_told_so(door: Door) -> None:
    host, port = door.address.split(":")

    def ask() -> bytes:
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            told = b""
            while more := plain.recv(4096):
                told += more
            return told

    told = await asyncio.to_thread(ask)
    assert told.startswith(b"HTTP/1.1 505 ")
    assert b"gRPC here" in told


def test_arguments_out_of_range_are_refused(tmp_path: Path) -> None:
    plane = DataPlane(listen="127.0.0.1:0", upstream=str(tmp_path / "p"), incarnation="r-1")
    with pytest.raises(OSError, match="in use"):
        DataPlane(listen=plane.address, upstream="/p", incarnation="r-2")
    plane.open_stream("m", 1)
    good: tuple[Any, ...] = ("c", 1, ACTION, 1, "unix:/c", 1, 1000, b"")
    for at, wrong in [(1, 2), (2, "x"), (4, "nowhere"), (5, 1001), (6, 0), (7, b"[]")]:
        order = (*good[:at], wrong, *good[at + 1 :])
        with pytest.raises(ValueError, match=r"\w"):
            plane.order("m", 1, (1, 1, 1), *order)
    with pytest.raises(ValueError, match="reason"):
        plane.refuse(ACTION, "NO_SUCH_REASON", "", -1)
    assert plane.order("m", 1, (1, 1, 1), *good)
    assert not plane.order("m", 1, (1, 1, 1), *good)
    assert not plane.order("m", 2, (1, 1, 2), *good)
    plane.close()
