"""The list of Managers on a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import pytest

from slotway.etcd import Client, Delete, Put
from slotway.etcd.server import free_port
from slotway.members import NameTakenError, managers, refuses, register
from slotway.records import Keys
from slotway.v1.ledger_pb2 import MemberRecord


@pytest.fixture
def keys(cluster: str) -> Keys:
    return Keys(cluster)


def member(id_: str, address: str = "127.0.0.1:1", incarnation: str = "i") -> MemberRecord:
    return MemberRecord(id=id_, address=address, incarnation=incarnation)


async def following(lists: AsyncGenerator[dict[str, str], None], wanted: dict[str, str]) -> None:
    async with asyncio.timeout(10):
        while await anext(lists) != wanted:
            pass


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_routers_see_who_comes_and_goes(etcd: Client, keys: Keys) -> None:
    async with aclosing(managers(etcd, keys)) as lists:
        assert await anext(lists) == {}
        first = asyncio.create_task(register(etcd, keys, member("m1", "h:1"), 2))
        await following(lists, {"m1": "h:1"})
        second = asyncio.create_task(register(etcd, keys, member("m2", "h:2"), 2))
        await following(lists, {"m1": "h:1", "m2": "h:2"})
        await end(first)
        await following(lists, {"m2": "h:2"})
        await end(second)


async def test_a_lost_key_is_put_again(etcd: Client, keys: Keys) -> None:
    task = asyncio.create_task(register(etcd, keys, member("m1", "h:1"), 2))
    async with aclosing(managers(etcd, keys)) as lists:
        await following(lists, {"m1": "h:1"})
        await etcd.txn(success=[Delete(keys.member("m1"))])
        await following(lists, {})
        await following(lists, {"m1": "h:1"})
        item, _ = await etcd.get(keys.member("m1"))
        assert item is not None
        await etcd.revoke(item.lease)
        await following(lists, {})
        await following(lists, {"m1": "h:1"})
    await end(task)


async def test_what_cannot_be_read_is_left_out(etcd: Client, keys: Keys) -> None:
    await etcd.txn(success=[Put(keys.member("odd"), b"junk")])
    async with aclosing(managers(etcd, keys)) as lists:
        assert await anext(lists) == {}


async def test_an_id_belongs_to_one_live_manager(etcd: Client, keys: Keys) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    first = asyncio.create_task(register(etcd, keys, member("m", address), 2))
    async with server, aclosing(managers(etcd, keys)) as lists:
        await following(lists, {"m": address})
        with pytest.raises(NameTakenError, match="an id of its own"):
            await register(etcd, keys, member("m", "h:2", "other"), 2)
    await end(first)


async def test_the_id_of_a_dead_manager_is_free_at_once(etcd: Client, keys: Keys) -> None:
    dead = f"127.0.0.1:{free_port()}"
    first = asyncio.create_task(register(etcd, keys, member("m", dead), 60))
    async with aclosing(managers(etcd, keys)) as lists:
        await following(lists, {"m": dead})
        second = asyncio.create_task(register(etcd, keys, member("m", "h:2", "other"), 60))
        await following(lists, {"m": "h:2"})
        await end(second)
    await end(first)


async def test_only_a_refused_connection_is_a_refusal() -> None:
    assert await refuses(f"127.0.0.1:{free_port()}")
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        assert not await refuses(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert not await refuses("no address")
