"""Which streams a Manager takes, and what becomes of a Router that does not come back."""

from __future__ import annotations

import grpc
import pytest

from slotway.status import from_rpc_error
from slotway.v1 import manager_pb2 as pb
from tests.integration.manager_world import World
from tests.integration.scripted_router import ScriptedRouter

HELLO = "demo/hello"


async def test_shares_of_an_unanswered_hello_come_back(world: World) -> None:
    """What the ledger grants and the router does not hold is free again after its Hello."""
    async with world.lead():
        await world.put(concurrency=4)
        router = ScriptedRouter("r0", world.address)
        async with router:
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO) == 4)
            await router.finish()
        router.held = dict.fromkeys(router.held, 1)
        router.open()
        await world.until(
            lambda: [dict(record.shares) for record in world.recorded()] == [{"r0-1": 1}]
        )
        await router.close()


async def test_a_name_in_use_is_refused(world: World) -> None:
    async with world.lead(), ScriptedRouter("r0", world.address):
        second = ScriptedRouter("r0", world.address, incarnation="r0-2")
        second.open()
        await second.until(lambda: second.error is not None)
        assert second.error is not None
        assert second.error.code() is grpc.StatusCode.ALREADY_EXISTS
        assert from_rpc_error(second.error).reason == "NAME_TAKEN"
        await second.close()


async def test_a_newer_stream_voids_the_older(world: World) -> None:
    async with world.lead(), ScriptedRouter("r0", world.address) as first:
        second = ScriptedRouter("r0", world.address, incarnation="r0-1")
        next(second._streams)
        async with second:
            await first.until(lambda: first.term is None)
            await world.put()
            await second.arrive(HELLO)
            await second.until(lambda: second.total(HELLO))


@pytest.mark.parametrize("field", ["router", "incarnation", "address", "stream"])
async def test_an_incomplete_opening_is_refused(world: World, field: str) -> None:
    async with world.lead():
        router = ScriptedRouter("r0", world.address)
        opening = pb.Open(router="r0", incarnation="i", address="127.0.0.1:1", stream=1)
        opening.ClearField(field)  # type: ignore[arg-type]
        router.opening = opening
        router.open()
        await router.until(lambda: router.error is not None)
        assert router.error is not None
        assert from_rpc_error(router.error).metadata == {"field": f"open.{field}"}
        await router.close()


async def test_another_protocol_is_refused(world: World) -> None:
    async with world.lead():
        router = ScriptedRouter("r0", world.address)
        router.protocols = (2, 3)
        router.open()
        await router.until(lambda: router.error is not None)
        assert router.error is not None
        assert from_rpc_error(router.error).reason == "PROTOCOL_MISMATCH"
        await router.close()


async def test_a_router_that_does_not_read_loses_its_stream_and_nobody_else(world: World) -> None:
    async with world.lead(), ScriptedRouter("r0", world.address) as other:
        async with ScriptedRouter("slow", world.address) as router:
            session = world.books.routers.by_id["slow-1"].session
            assert session is not None
            for _ in range(300):
                session.send(pb.AttachResponse())
            await router.until(lambda: router.error is not None)
        turn = other.turn
        await other.until(lambda: other.turn > turn)


async def test_a_gone_routers_own_containers_are_killed(world: World) -> None:
    async with world.lead():
        await world.put(concurrency=2)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO, 2)
            await router.until(lambda: router.running and router.total(HELLO) == 2)
        assert world.engine.containers  # the stream's end alone is no proof
        await world.until(lambda: not world.books.containers)
        assert not world.engine.containers


async def test_a_shared_container_outlives_a_gone_router_until_its_slots_are_missed(
    world: World,
) -> None:
    async with world.lead(), ScriptedRouter("stays", world.address) as stays:
        await world.put(concurrency=2)
        async with ScriptedRouter("goes", world.address) as goes:
            await stays.arrive(HELLO)
            await goes.until(lambda: goes.total(HELLO) == 1)
            (first,) = await world.records()
            await goes.arrive(HELLO)
        known = world.books.routers
        await world.until(lambda: known.by_id["goes-1"].vanished)
        assert dict((await world.records())[first].shares) == {"goes-1": 1, "stays-1": 1}
        await stays.arrive(HELLO)
        await stays.until(lambda: stays.held[first] == 0)
        await stays.until(lambda: stays.total(HELLO) == 2)
        await stays.finish()
        await world.until(lambda: len(world.books.containers) == 1)
        assert first not in await world.records()
