"""Stem cells with a real etcd, real streams and scripted Routers; only the engine is fake."""

from __future__ import annotations

from slotway.manager.container import Container
from slotway.v1.ledger_pb2 import CONTAINER_STATE_PREWARMED, CONTAINER_STATE_READY
from tests.integration.manager_world import World
from tests.integration.scripted_router import ScriptedRouter

HELLO = "demo/hello"
KIND = "python:3"


def prewarmed(world: World) -> list[Container]:
    return [
        one
        for one in world.books.containers.values()
        if one.state == CONTAINER_STATE_PREWARMED and one.mod_revision
    ]


async def test_a_cold_start_takes_a_cell_and_the_stock_is_refilled(world: World) -> None:
    async with world.lead(prewarm={KIND: "2"}):
        await world.until(lambda: len(prewarmed(world)) == 2)
        cells = {one.id for one in prewarmed(world)}
        for record in (await world.records()).values():
            assert (record.action, record.capacity, record.kind) == ("", 0, KIND)
        await world.put(concurrency=10)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO, 3)
            await router.until(lambda: router.running)
            (used,) = router.running
            assert used in cells
            record = (await world.records())[used]
            assert (record.action, record.capacity) == (HELLO, 10)
            assert (record.state, dict(record.shares)) == (CONTAINER_STATE_READY, {"r0-1": 10})
            await world.until(lambda: len(prewarmed(world)) == 2)
        assert len(world.engine.used) == 3


async def test_a_burst_takes_all_cells_and_creates_the_rest(world: World) -> None:
    async with world.lead(prewarm={KIND: "3"}):
        await world.until(lambda: len(prewarmed(world)) == 3)
        await world.put(concurrency=2)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO, 10)
            await router.until(lambda: sum(router.running.values()) == 10)
            of_action = [r for r in (await world.records()).values() if r.action == HELLO]
            assert len(of_action) == 5
            initialised = [c for c in world.engine.containers.values() if c.initialised]
            assert len(initialised) == 5


async def test_a_cell_of_another_size_is_not_used(world: World) -> None:
    async with world.lead(prewarm={KIND: "1"}, prewarm_memory_mib=512):
        await world.until(lambda: len(prewarmed(world)) == 1)
        (cell,) = prewarmed(world)
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.running)
            assert cell.id not in router.running
            assert cell.is_cell


async def test_a_cell_makes_room_for_an_action_that_it_does_not_fit(world: World) -> None:
    async with world.lead(prewarm={KIND: "1"}, containers_max=1):
        await world.until(lambda: len(prewarmed(world)) == 1)
        await world.put(memory_mib=512)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.running)
            assert len(world.books.containers) == 1


async def test_cells_outlive_their_leader(world: World) -> None:
    async with world.lead(prewarm={KIND: "2"}):
        await world.until(lambda: len(prewarmed(world)) == 2)
        cells = {one.id for one in prewarmed(world)}
    async with world.lead(prewarm={KIND: "2"}):
        await world.until(lambda: {one.id for one in prewarmed(world)} == cells)
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.running)
            assert set(router.running) < cells


async def test_a_leader_without_a_stock_ends_the_cells_of_the_one_before(world: World) -> None:
    async with world.lead(prewarm={KIND: "2"}):
        await world.until(lambda: len(prewarmed(world)) == 2)
    async with world.lead():
        await world.until(lambda: not world.books.containers)
        assert not world.engine.containers


async def test_a_cell_that_crashes_is_replaced(world: World) -> None:
    async with world.lead(prewarm={KIND: "1"}):
        await world.until(lambda: len(prewarmed(world)) == 1)
        (cell,) = prewarmed(world)
        world.engine.end(cell.id)  # type: ignore[arg-type]
        await world.until(lambda: [one.id for one in prewarmed(world)] not in ([], [cell.id]))
        assert cell.id not in await world.records()


async def test_a_failing_engine_is_not_asked_for_cells_again_and_again(world: World) -> None:
    world.engine.create_error = "no such image"
    async with world.lead(prewarm={KIND: "2"}):
        cells = world.books.cells
        await world.until(lambda: cells.pauses(KIND))
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            world.engine.create_error = ""
            await router.arrive(HELLO)  # actions do not wait for the pause
            await router.until(lambda: router.running)
            await world.until(lambda: len(prewarmed(world)) == 2)
