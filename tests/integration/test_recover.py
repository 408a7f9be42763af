"""A new epoch: whatever the older ones left is ended before anybody is served."""

from __future__ import annotations

import asyncio
import sys

import pytest

from slotway.etcd import Delete, Put
from slotway.manager.ledger import LedgerRefusedError, recover
from slotway.records import decode, encode
from slotway.v1 import ledger_pb2
from slotway.v1 import manager_pb2 as pb
from tests.integration.manager_world import World
from tests.integration.scripted_router import ScriptedRouter

HELLO = "demo/hello"


async def ledger_record(world: World) -> ledger_pb2.LedgerRecord:
    item, _ = await world.client.get(world.keys.ledger)
    assert item is not None
    return decode(ledger_pb2.LedgerRecord, item.key, item.value)


async def test_containers_of_the_old_epoch_end_before_anybody_is_greeted(world: World) -> None:
    async with world.lead() as manager:
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO) == 1)
            (old,) = world.engine.containers
            left_when_greeted = []
            hear = router._hear

            async def hearing(message: pb.AttachResponse) -> None:
                if message.HasField("welcome"):
                    left_when_greeted.append(set(world.engine.containers))
                await hear(message)

            router._hear = hearing  # type: ignore[method-assign]
            assert await recover(world.client, world.keys) == 2
            await router.until(lambda: router.term and router.term.epoch == 2)
            assert left_when_greeted == [set()]
            await router.until(lambda: old in router.ended)
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO) == 1)
            await world.until(lambda: world.leads(manager))
            assert not (await ledger_record(world)).recovering
            assert set(await world.records()) == set(world.engine.containers) != {old}


async def test_strays_of_a_wiped_ledger_end_before_anybody_is_greeted(world: World) -> None:
    async with world.lead():
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO) == 1)
    assert world.engine.containers
    await world.client.txn(success=[Delete(world.keys.prefix, prefix=True)])
    assert await recover(world.client, world.keys, above=4) == 5
    async with world.run() as manager, ScriptedRouter("r1", manager.address) as router:
        assert router.term is not None
        assert router.term.epoch == 5
        assert not world.engine.containers


async def test_another_etcd_is_led_after_recover_only(world: World) -> None:
    foreign = ledger_pb2.LedgerRecord(epoch=3, etcd_cluster_id="beef")
    await world.client.txn(success=[Put(world.keys.ledger, encode(foreign))])
    async with world.run():
        assert world.running is not None
        with pytest.raises(LedgerRefusedError):
            await world.running
    command = ("cluster", "recover", "--yes", "--etcd", world.endpoint, "--cluster", world.cluster)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "slotway.cli", *command), stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said
    assert b"epoch 4 of" in said
    async with world.lead() as manager:
        assert manager.loop().term[0] == 4
    assert not (await ledger_record(world)).recovering
