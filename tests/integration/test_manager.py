"""The Manager with a real etcd, real streams and scripted Routers; only the engine is fake."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from slotway.etcd import Get
from slotway.v1 import manager_pb2 as pb
from slotway.v1.ledger_pb2 import CONTAINER_STATE_READY
from tests.integration.manager_world import World
from tests.integration.scripted_router import ScriptedRouter

HELLO = "demo/hello"


async def test_demand_is_met_and_recorded(world: World) -> None:
    async with world.lead():
        await world.put(concurrency=10)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO, 3)
            await router.until(lambda: router.running and router.total(HELLO) == 10)
            (record,) = (await world.records()).values()
            assert dict(record.shares) == {"r0-1": 10}
            assert (record.state, record.capacity) == (CONTAINER_STATE_READY, 10)
            assert record.action == HELLO
            assert world.engine.containers[record.id].initialised  # type: ignore[index]


@pytest.mark.parametrize("capacity", [1, 7, 10, 100, 200])
async def test_a_burst_is_folded_exactly(world: World, capacity: int) -> None:
    async with world.lead(), AsyncExitStack() as stack:
        await world.put(concurrency=capacity)
        routers = [
            await stack.enter_async_context(ScriptedRouter(f"r{i}", world.address))
            for i in range(3)
        ]
        for i in range(100):
            await routers[i % 3].arrive(HELLO)
            await asyncio.sleep(0)
        for router in routers:
            await router.until(lambda router=router: not router.waiting[HELLO])
        await world.until(lambda: not world.books.dirty)
        assert len(await world.records()) == -(-100 // capacity)
        assert sum(sum(router.running.values()) for router in routers) == 100


async def test_the_rest_goes_to_all_evenly(world: World) -> None:
    async with world.lead(), AsyncExitStack() as stack:
        await world.put(concurrency=10)
        routers = [
            await stack.enter_async_context(ScriptedRouter(f"r{i}", world.address))
            for i in range(3)
        ]
        await routers[0].arrive(HELLO)
        for router in routers:
            await router.until(lambda router=router: router.total(HELLO))
        assert sorted(router.total(HELLO) for router in routers) == [3, 3, 4]
        await routers[1].arrive(HELLO, 9)  # idle slots move; nothing is created
        await routers[1].until(lambda: routers[1].total(HELLO) == 9)
        assert len(await world.records()) == 1


async def test_routers_without_slots_are_told_their_peers(world: World) -> None:
    async with world.lead(), AsyncExitStack() as stack:
        await world.put(concurrency=1)
        routers = [
            await stack.enter_async_context(ScriptedRouter(f"r{i}", world.address))
            for i in range(3)
        ]
        await routers[1].arrive(HELLO)
        for other in (routers[0], routers[2]):
            await other.until(lambda other=other: other.peers.get(HELLO) == ["r1-1"])
        assert HELLO not in routers[1].peers


async def test_a_lowering_frees_nothing_before_its_acknowledgement(world: World) -> None:
    async with world.lead(containers_max=1):
        await world.put(concurrency=2)
        async with (
            ScriptedRouter("busy", world.address) as busy,
            ScriptedRouter("idle", world.address) as idle,
        ):
            await busy.arrive(HELLO, 2)
            await busy.until(lambda: busy.running and busy.total(HELLO) == 2)
            await idle.arrive(HELLO)
            await busy.until(lambda: busy.total(HELLO) == 1)  # the order, while both still run
            turn = busy.turn
            await busy.until(lambda: busy.turn > turn + 3)
            (record,) = (await world.records()).values()
            assert dict(record.shares) == {"busy-1": 2}
            assert idle.total(HELLO) == 0
            await busy.finish(1)
            await idle.until(lambda: idle.total(HELLO) == 1)
            (record,) = (await world.records()).values()
            assert dict(record.shares) == {"busy-1": 1, "idle-1": 1}


async def test_slots_given_back_wait_for_demand_and_the_idle_container_goes(world: World) -> None:
    async with world.lead(keep_warm="300ms"):
        await world.put(concurrency=4)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO) == 4)
            await router.finish()
            await router.give_back()
            await world.until(lambda: not any(r.shares for r in world.recorded()))
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO) == 4)
            assert len(world.engine.used) == 1
            await router.finish()
            await router.give_back()
            await router.until(lambda: router.ended)
            await world.until(lambda: not world.books.containers)
            assert await world.records() == {}
            assert not world.engine.containers


async def test_an_update_drains_the_old_revision(world: World) -> None:
    async with world.lead():
        first = await world.put(concurrency=2)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO, 2)
            await router.until(lambda: router.total(HELLO) == 2)
            (old,) = await world.records()
            assert (await world.put(concurrency=2)).revision == first.revision, "nothing changed"
            second = await world.put(concurrency=3)
            assert second.revision > first.revision
            await router.until(lambda: router.held[old] == 0)
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO) == 3)
            assert old in world.engine.containers, "requests run in it"
            await router.finish()
            await router.until(lambda: old in router.ended)
            assert old not in world.engine.containers
            await world.until(lambda: len(world.books.containers) == 1)  # told before it is written
            (record,) = (await world.records()).values()
            assert (record.revision, record.capacity) == (second.revision, 3)


async def test_a_deleted_action_drains_and_its_requests_are_refused(world: World) -> None:
    async with world.lead():
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO))
            await router.finish()
            await world.delete()
            await router.until(lambda: router.ended)
            await router.arrive(HELLO)
            await router.until(lambda: router.refusals)
            assert router.refusals[0].reason == "ACTION_NOT_FOUND"
            assert not world.engine.containers


async def test_failing_code_is_told_at_once_and_not_tried_in_a_hurry(world: World) -> None:
    world.engine.init_error = '{"error": "NameError: name \'x\' is not defined"}'
    async with world.lead():
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO, 5)
            await router.until(lambda: router.refusals)
            refusal = router.refusals[0]
            assert (refusal.action, refusal.reason) == (HELLO, "INIT_FAILED")
            assert "NameError" in refusal.message
            await world.until(lambda: not world.books.containers)
            tried = len(world.engine.used)
            await router.arrive(HELLO)
            await router.until(lambda: len(router.refusals) > 1)
            assert len(world.engine.used) == tried
            world.engine.init_error = ""
            await world.put(code=b"def main(args): return {}")
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO))


async def test_failing_creations_are_told_after_some(world: World) -> None:
    world.engine.create_error = "no space left on device"
    async with world.lead():
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.refusals)
            assert router.refusals[0].reason == "CREATE_FAILED"
            assert "no space left" in router.refusals[0].message
            assert router.refusals[0].HasField("retry_delay")
            world.engine.create_error = ""
            now, action = asyncio.get_running_loop().time, world.books.actions[HELLO]
            await world.until(lambda: action.not_before < now())
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO))


async def test_the_end_of_a_container_is_told_and_replaced(world: World) -> None:
    async with world.lead():
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO))
            (first,) = world.engine.containers
            world.engine.end(first)
            await router.until(lambda: first in router.ended)
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO))
            assert first not in await world.records()


async def test_an_overrun_retires_its_container(world: World) -> None:
    async with world.lead(overrun_grace="100ms"):
        await world.put(concurrency=2, timeout_ms=100)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO) == 2)
            (container,) = world.engine.containers
            trouble = pb.ContainerTrouble(
                container_id=container, kind=pb.ContainerTrouble.KIND_OVERRUN, slots=1
            )
            router.send(pb.AttachRequest(troubles=[trouble]))
            await router.until(lambda: router.held.get(container) == 0)
            await router.until(lambda: container in router.ended)  # it never acknowledged


async def test_a_container_that_takes_no_connections_is_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine says that it runs; only what routers see tells that it is of no use."""
    monkeypatch.setattr("slotway.manager.container.REFUSED_S", 0.5)
    async with world.lead():
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO))
            (container,) = world.engine.containers
            trouble = pb.ContainerTrouble(
                container_id=container, kind=pb.ContainerTrouble.KIND_REFUSED, slots=1
            )
            await router.finish()
            began_at = asyncio.get_running_loop().time()
            async with asyncio.timeout(20):
                while container not in router.ended:
                    router.send(pb.AttachRequest(troubles=[trouble]))
                    await asyncio.sleep(0.05)
            assert asyncio.get_running_loop().time() - began_at >= 0.5


async def test_a_small_cluster_makes_room(world: World) -> None:
    async with world.lead(containers_max=1):
        await world.put("demo/a")
        await world.put("demo/b")
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive("demo/a")
            await router.until(lambda: router.total("demo/a"))
            await router.finish()
            await router.give_back()
            await router.arrive("demo/b")
            await router.until(lambda: router.total("demo/b"))
            assert len(await world.records()) == 1


async def test_an_action_larger_than_the_cluster_is_refused(world: World) -> None:
    async with world.lead(memory_max_mib=128):
        await world.put(memory_mib=256)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.refusals)
            assert router.refusals[0].reason == "CLUSTER_FULL"


async def test_the_cluster_is_shown(world: World) -> None:
    async with world.lead():
        await world.put(concurrency=2)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO) == 2)
            shown = await world.show()
            assert (shown.name, shown.leader, shown.actions) == (world.cluster, "one", 1)
            assert dict(shown.containers[0].record.shares) == {"r0-1": 2}
            assert (shown.routers[0].name, shown.routers[0].state) == ("r0", 1)


async def test_turn_revisions_make_a_chain(world: World) -> None:
    async with world.lead():
        await world.put()
        result = await world.client.txn([], [Get(world.keys.turn)])
        assert result.found[0][0].mod_revision == world.books.revision
