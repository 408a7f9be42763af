"""Requests of running actions at a front door: they wait for a shorter time, and are told why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from slotway.aio import ApplicationError, Client
from slotway.cli.devcluster import reserve
from slotway.v1 import action_pb2, action_pb2_grpc, router_pb2

from .door import ACTION, PATIENCE_S, Container, connect, invoke, open_door, refused
from .test_dev import running

SHORT: dict[str, Any] = {"max_wait_ms": 60_000, "nested_max_wait_ms": 200}
CALLER = (("slotway-caller", "a1"),)
NESTED = router_pb2.InvokeRequest(action=ACTION)


async def test_who_calls_from_an_action_waits_for_a_shorter_time(tmp_path: Path) -> None:
    async with (
        open_door(tmp_path / "none.sock", **SHORT) as door,
        connect(door.address) as client,
        Container(tmp_path / "c.sock") as container,
    ):
        outer = invoke(client)
        await door.until_waiting(1)
        started = asyncio.get_running_loop().time()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.Invoke(NESTED, timeout=PATIENCE_S, metadata=CALLER)
        assert 0.15 < asyncio.get_running_loop().time() - started < 5
        told = refused(error.value)
        assert (told.code.name, told.reason) == ("RESOURCE_EXHAUSTED", "MAX_WAIT")
        assert told.metadata == {"nested": "true"}
        assert told.retry_s is not None
        assert "no slot of guest/work came free within 200ms" in told.message
        assert "its caller is an action" in told.message
        assert door.waiting() == 1, "others wait on"
        door.give(container, 1)
        assert (await outer).container_id == "c-1"
        answer = await client.Invoke(NESTED, timeout=PATIENCE_S, metadata=CALLER)
        assert answer.container_id == "c-1"


async def test_a_peer_knows_whose_request_it_is(tmp_path: Path) -> None:
    """The container is busy, so the request waits at the peer, and for the peer's short time."""
    async with (
        open_door(tmp_path / "none.sock", max_wait_ms=60_000, nested_max_wait_ms=60_000) as origin,
        open_door(tmp_path / "none.sock", "r-2", **SHORT) as peer,
        connect(origin.address) as client,
        connect(peer.address) as of_peer,
        Container(tmp_path / "c.sock") as container,
    ):
        peer.give(container, 1)
        origin.plane.peers(ACTION, [("r-2", peer.address, 0)])
        busy = invoke(of_peer, "hold")
        await container.until(lambda: container.running == 1)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.Invoke(NESTED, timeout=PATIENCE_S, metadata=CALLER)
        assert refused(error.value).metadata == {"nested": "true"}
        container.gate.set()
        await busy


async def test_the_door_of_actions(tmp_path: Path) -> None:
    """All that come in there are actions, which invoke and do nothing else; and when one Router
    leaves, the others of the machine still answer."""
    with reserve("127.0.0.1") as held:
        address = "{}:{}".format(*held.getsockname())
        async with AsyncExitStack() as stack:
            container = await stack.enter_async_context(Container(tmp_path / "c.sock"))
            settings = {**SHORT, "actions_listen": address}
            door = await stack.enter_async_context(open_door(tmp_path / "none.sock", **settings))
            async with open_door(tmp_path / "none.sock", "r-2", **settings):
                pass
            async with connect(address) as client:
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await invoke(client)
                assert refused(error.value).metadata == {"nested": "true"}
                door.give(container, 1)
                assert (await invoke(client)).container_id == "c-1"
            async with grpc.aio.insecure_channel(address) as channel:
                actions = action_pb2_grpc.ActionServiceStub(channel)
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await actions.DeleteAction(
                        action_pb2.DeleteActionRequest(name=ACTION), timeout=PATIENCE_S
                    )
                told = refused(error.value)
                assert (told.code.name, told.reason) == ("UNIMPLEMENTED", "UNSUPPORTED")
                assert "RouterService/Invoke and Submit are all there is" in told.message


async def test_the_door_of_actions_may_be_of_a_network_that_comes_later(tmp_path: Path) -> None:
    with reserve("198.51.100.77") as held:
        address = "{}:{}".format(*held.getsockname())
        async with open_door(tmp_path / "none.sock", actions_listen=address) as door:
            assert door.address.startswith("127.0.0.1:")


async def test_a_taken_address_is_told(tmp_path: Path) -> None:
    async with open_door(tmp_path / "none.sock") as other:
        with pytest.raises(OSError, match="in use"):
            async with open_door(tmp_path / "none.sock", actions_listen=other.address):
                pass


OUTER = b"""
import os, pathlib, time
from slotway.client import Client

def main(args):
    folder = pathlib.Path(args["folder"])
    (folder / os.environ["SLOTWAY_CONTAINER"]).touch()
    until = time.monotonic() + 30
    while len(list(folder.iterdir())) < args["together"]:
        assert time.monotonic() < until, "the other one did not come"
        time.sleep(0.01)
    with Client(os.environ["__OW_API_HOST"]) as client:
        return client.invoke("demo/inner", {"number": args["number"]}, timeout=60).result
"""
INNER = b"def main(args):\n    return {'twice': 2 * args['number']}\n"


@asynccontextmanager
async def actions(folder: Path, *flags: str) -> AsyncIterator[Client]:
    """A cluster on the process driver with both actions."""
    (folder / "together").mkdir()
    async with running(folder, "--routers", "2", *flags) as dev:
        async with await dev.ready() as client:
            await client.put_action("demo/outer", OUTER)
            await client.put_action("demo/inner", INNER)
            yield client
        assert await dev.end() == 0


async def test_a_full_cluster_refuses_its_own_actions_in_time_and_goes_on(
    tmp_path: Path,
) -> None:
    """Two that run have all the room there is, and each waits for a third."""
    async with actions(tmp_path, "--containers-max", "2") as client:
        arguments = {"folder": str(tmp_path / "together"), "together": 2, "number": 4}
        calls = (client.invoke("demo/outer", arguments, timeout=60) for _ in range(2))
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, ApplicationError), outcome
            assert outcome.status == 502
            assert "no slot of demo/inner came free within 5s" in str(outcome.error)
        answer = await client.invoke("demo/inner", {"number": 5}, timeout=60)
        assert answer.result == {"twice": 10}


async def test_with_room_an_action_invokes_another(tmp_path: Path) -> None:
    async with actions(tmp_path, "--containers-max", "2") as client:
        arguments = {"folder": str(tmp_path / "together"), "together": 1, "number": 4}
        answer = await client.invoke("demo/outer", arguments, timeout=60)
        assert answer.result == {"twice": 8}
