"""Two Manager processes on a real etcd: each way to lose the leader, and how soon the next serves.

The bounds here are for a busy machine; the figures themselves are `bench/failover.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from slotway.etcd import Client, Delete, Put
from slotway.etcd.server import EtcdServer, free_port
from slotway.records import encode
from slotway.status import from_rpc_error
from slotway.v1 import action_pb2
from slotway.v1.action_pb2_grpc import ActionServiceStub
from slotway.v1.ledger_pb2 import LeaderRecord
from tests.integration.managers import WAIT_S, ManagerProcess, Managers, managers

pytestmark = pytest.mark.slow


@pytest.fixture
async def pair(
    etcd: Client, etcd_server: EtcdServer, cluster: str, tmp_path: Path
) -> AsyncIterator[Managers]:
    async with managers(etcd, etcd_server.endpoint, cluster, tmp_path, "one", "two") as world:
        yield world


async def serves(world: Managers, manager: ManagerProcess, since: float) -> float:
    """Waits until this Manager answers as the leader; returns the seconds since then."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert (await world.show(manager)).leader == manager.name
                return time.monotonic() - since
            await asyncio.sleep(0.005)


async def test_a_standby_is_shown_and_names_the_leader(pair: Managers) -> None:
    leader, (standby,) = await pair.led()
    (shown,) = (await pair.show(leader)).standbys
    assert (shown.manager, shown.address) == (standby.name, standby.address)
    assert shown.revision > 0
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pair.show(standby)
    error = from_rpc_error(caught.value)
    assert (error.reason, error.metadata) == ("NOT_LEADER", {"leader": leader.address})
    # What the leader writes, the standby has with the next beat.
    async with grpc.aio.insecure_channel(leader.address) as channel:
        action = action_pb2.Action(name="demo/a", exec=action_pb2.Exec(kind="python:3"))
        request = action_pb2.PutActionRequest(action=action, code=b"def main(args): ...")
        await ActionServiceStub(channel).PutAction(request, timeout=WAIT_S)
    async with asyncio.timeout(WAIT_S):
        async for now in pair.shown(leader):
            if now.standbys[0].revision > shown.revision:
                break


async def test_a_killed_leader_is_followed_at_once(pair: Managers) -> None:
    leader, (standby,) = await pair.led()
    began = time.monotonic()
    leader.signal(signal.SIGKILL)
    assert await serves(pair, standby, began) < 1.0
    assert "its stream broke, and it refuses" in standby.log.read_text()
    await leader.process.wait()
    await pair.start(leader.name)  # the same name, another incarnation
    await pair.led()


async def test_a_stopped_leader_is_followed_soon_and_wakes_as_a_standby(pair: Managers) -> None:
    leader, (standby,) = await pair.led()
    await asyncio.sleep(2.0)  # a young key is left alone
    began = time.monotonic()
    leader.signal(signal.SIGSTOP)
    assert await serves(pair, standby, began) < 4.0
    leader.signal(signal.SIGCONT)
    now, (before,) = await pair.led()
    assert (now, before) == (standby, leader)


async def test_a_leader_that_is_asked_to_stop_hands_over(pair: Managers) -> None:
    leader, (standby,) = await pair.led()
    began = time.monotonic()
    leader.signal(signal.SIGTERM)
    assert await serves(pair, standby, began) < 1.0
    async with asyncio.timeout(WAIT_S):
        assert await leader.process.wait() == 0
    assert "handed over" in leader.log.read_text()
    _, item = await pair.leader()
    assert item is not None
    assert item.version > 1, "the key was never absent"


async def test_a_deleted_key_and_a_revoked_lease_cost_one_term(pair: Managers) -> None:
    for loss in ("key", "lease"):
        _, before = await pair.leader()
        await pair.led()
        _, before = await pair.leader()
        assert before is not None
        began = time.monotonic()
        if loss == "key":
            await pair.client.txn(success=[Delete(pair.keys.leader)])
        else:
            await pair.client.revoke(before.lease)
        async with asyncio.timeout(WAIT_S):
            while (found := await pair.leader()) is not None:
                if found[1] is not None and found[1].mod_revision > before.mod_revision:
                    break
        assert time.monotonic() - began < 2.0
        await pair.led()


async def test_a_foreign_leader_that_is_nobody_is_replaced(pair: Managers) -> None:
    await pair.led()
    foreign = LeaderRecord(id="x", address=f"127.0.0.1:{free_port()}", incarnation="x")
    result = await pair.client.txn(success=[Put(pair.keys.leader, encode(foreign))])
    began = time.monotonic()
    await pair.led()
    assert 1.5 < time.monotonic() - began < 10, "after the two seconds that a young key has"
    _, item = await pair.leader()
    assert item is not None
    assert item.mod_revision > result.revision
