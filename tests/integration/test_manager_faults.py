"""What a Manager does when etcd, another Manager, the engine or a Router fails it."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog.testing

from slotway.drivers.base import ContainerId, ContainerSpec, Label
from slotway.drivers.fake import FakeDriver
from slotway.errors import SlotwayError
from slotway.etcd import Access, Client, Delete, Put
from slotway.etcd.server import EtcdServer
from slotway.records import encode
from slotway.v1 import ledger_pb2
from slotway.v1 import manager_pb2 as pb
from tests.integration.faulty import FaultyClient
from tests.integration.manager_world import World
from tests.integration.scripted_router import ScriptedRouter

HELLO = "demo/hello"


@pytest.fixture
async def faulty(world: World) -> AsyncIterator[FaultyClient]:
    async with FaultyClient(Access(endpoints=(world.endpoint,))) as client:
        yield client


@pytest.mark.parametrize("fault", ["answer lost", "request lost", "late"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_an_unknown_outcome_is_settled(
    world: World, faulty: FaultyClient, fault: str, number: int
) -> None:
    """Whichever of the writes is lost (the container created, initialised, ready and granted, given
    back), all comes right, and once."""
    faulty.faults[number] = fault
    async with world.lead(faulty):
        await world.put(concurrency=4)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO, 2)
            await router.until(lambda: router.total(HELLO) == 4)
            await router.finish(1)
            while [dict(record.shares) for record in world.recorded()] != [{"r0-1": 1}]:
                turn = router.turn  # a settled ledger may have told it again what it had given back
                await router.give_back()
                await router.until(lambda turn=turn: router.turn > turn)
            late = await faulty.apply_late()
            assert not any(late), "a settled write was applied"
            (record,) = (await world.records()).values()
            assert dict(record.shares) == {"r0-1": 1}
            assert len(world.engine.used) == 1
            assert faulty.writes >= number


async def test_nothing_is_sent_while_an_outcome_is_unknown(
    world: World, faulty: FaultyClient
) -> None:
    async with world.lead(faulty):
        await world.put(concurrency=4)
        async with ScriptedRouter("r0", world.address) as router:
            faulty.gate.clear()
            await router.arrive(HELLO)
            await world.until(lambda: world.books.containers)
            seen = len(router.messages)
            await router.until(lambda: len(router.messages) >= seen + 5)
            for message in router.messages[seen + 1 :]:  # it shows that it lives, and says no more
                beat = pb.AttachResponse(term=message.term, turn=router.turn)
                assert message == beat
            assert not world.engine.containers
            faulty.gate.set()
            await router.until(lambda: router.total(HELLO) == 4)


async def test_a_deposed_leader_sends_nothing_more(world: World, faulty: FaultyClient) -> None:
    async with world.lead(faulty) as manager:
        await world.put(concurrency=4)
        async with ScriptedRouter("r0", world.address) as router:
            first = manager.loop().term
            faulty.gate.clear()
            await router.arrive(HELLO)
            await world.until(lambda: world.books.containers)
            other = ledger_pb2.LeaderRecord(id="two", address="127.0.0.1:1", incarnation="x")
            await world.client.txn([], [Put(world.keys.leader, encode(other))])
            faulty.gate.set()
            await world.until(lambda: manager._loop is None)
            assert not any(message.orders for message in router.messages)
            assert not world.engine.containers
            with contextlib.suppress(SlotwayError):
                assert manager.loop().term > first
            # "two" does not answer: this one leads again, and the demand is met.
            await router.until(lambda: router.total(HELLO) == 4)
            assert manager.loop().term > first
            orders = [m.term.revision for m in router.messages if m.orders]
            assert set(orders) == {manager.loop().term[1]}


async def test_a_restarted_manager_finds_everything_as_it_was(world: World) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with world.lead():
            await world.put(concurrency=4)
            router = await stack.enter_async_context(ScriptedRouter("r0", world.address))
            await router.arrive(HELLO, 2)
            await router.until(lambda: router.total(HELLO) == 4 and router.running)
            before, held = await world.records(), dict(router.held)
        await router.close()
        assert world.engine.containers.keys() == before.keys()
        async with world.lead():
            router.manager = world.address
            router.open()
            await router.until(lambda: router.term)
            await world.until(lambda: world.books.ledger.known("r0-1"))
            await router.arrive(HELLO, 2)
            await router.until(lambda: not router.waiting[HELLO])
            assert await world.records() == before
            assert router.held == held
            assert not router.ended
            assert len(world.engine.used) == 1
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO) == 8)


async def test_only_a_containers_own_engine_tells_of_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another engine has never heard of the container, which is not to say that it has ended."""
    async with world.lead():
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO))
            await router.finish()
            await router.give_back()
            (container,) = world.engine.containers
            await world.until(lambda: not world.books.ledger.shares(container))
    with monkeypatch.context() as moved:
        moved.setattr(FakeDriver, "engine", lambda _: "fake/elsewhere")
        with structlog.testing.capture_logs() as logs:
            async with world.lead():
                await world.delete()
                await world.until(
                    lambda: any(log["event"] == "a container cannot be ended" for log in logs)
                )
                assert (await world.records()).keys() == {container}
        assert world.engine.containers.keys() == {container}
    async with world.lead():
        await world.until(lambda: not world.books.containers)
        assert not await world.records()
        assert not world.engine.containers


async def test_a_takeover_sorts_out_what_it_finds(world: World) -> None:
    """An init of an older term is not trusted, a lost intent is carried out, an unrecorded
    container is ended, and a record whose container is gone is deleted."""
    async with world.lead() as manager:
        action = await world.put(concurrency=2)
        driver = FakeDriver(world.cluster, world.folder / "s", world.engine)
        term = f"{manager.loop().term[0]}.{manager.loop().term[1]}"
    for name in ("initialising", "stray"):
        label = Label(world.cluster, 1, ContainerId(name), term)
        await driver.create(ContainerSpec(label, "python:3", 2, 256))
    world.engine.used.add(ContainerId("gone"))
    states = {
        "initialising": ledger_pb2.CONTAINER_STATE_INITIALISING,
        "gone": ledger_pb2.CONTAINER_STATE_READY,
        "creating": ledger_pb2.CONTAINER_STATE_CREATING,
    }
    for name, state in states.items():
        record = ledger_pb2.ContainerRecord(
            id=name,
            action=HELLO,
            revision=action.revision,
            state=state,
            capacity=2,
            driver="fake",
            engine=driver.engine(),
            address=driver.address(ContainerId(name)),
            term=term,
            timeout_ms=60_000,
            memory_mib=256,
        )
        if name == "gone":
            record.shares["router-of-long-ago"] = 2
        await world.client.txn([], [Put(world.keys.container(name), encode(record))])
    async with world.lead(), ScriptedRouter("r0", world.address) as router:
        await router.until(lambda: router.total(HELLO) == 2)
        await world.until(lambda: world.engine.containers.keys() == {"creating"})
        await world.until(lambda: world.books.containers.keys() == {"creating"})
        assert (await world.records()).keys() == {"creating"}


async def test_a_ledger_that_forgot_a_grant_is_not_served(world: World) -> None:
    async with world.lead() as manager:
        await world.put(concurrency=2)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.total(HELLO) == 2)
            router.held = dict.fromkeys(router.held, 3)
            await router.close()
            router.open()
            await world.until(lambda: manager._loop is None)
        assert world.running is not None
        with pytest.raises(SlotwayError) as caught:
            await asyncio.shield(world.running)
        assert caught.value.reason == "EPOCH_MISMATCH"


@pytest.mark.parametrize("fault", ["answer lost", "request lost"])
async def test_a_lost_answer_does_not_make_a_put_fail(
    world: World, faulty: FaultyClient, fault: str
) -> None:
    """A caller that expects a revision is not told of a conflict with its own write."""
    async with world.lead(faulty):
        first = await world.put()
        faulty.spoils = "/actions/"
        faulty.faults[1] = fault
        second = await world.put(concurrency=2, expected_revision=first.revision)
        assert second.revision > first.revision
        assert faulty.writes == (1 if fault == "answer lost" else 2)
        faulty.faults[faulty.writes + 1] = fault
        await world.delete()
        assert not world.books.actions


async def test_when_etcd_comes_back_all_goes_on(own_etcd: EtcdServer, cluster: str) -> None:
    """A leader that cannot commit resigns; what Routers hold stays, cold demand is met later."""
    async with Client(Access(endpoints=(own_etcd.endpoint,), timeout_s=0.3)) as client:
        with tempfile.TemporaryDirectory(prefix="slotway-") as folder:
            world = World(client, own_etcd.endpoint, cluster, Path(folder))
            async with world.lead() as manager:
                await world.put(concurrency=2)
                async with ScriptedRouter("r0", world.address) as router:
                    await router.arrive(HELLO, 2)
                    await router.until(lambda: router.total(HELLO) == 2)
                    held = dict(router.held)
                    await own_etcd.stop()
                    await router.arrive(HELLO)
                    await world.until(lambda: not world.leads(manager))
                    assert router.held == held
                    assert world.engine.containers.keys() == held.keys()
                    await own_etcd.start()
                    await router.until(lambda: router.total(HELLO) == 4)
                    assert router.held.items() > held.items()
                    assert not router.ended
            for container in list(world.engine.containers):
                world.engine.end(container)


async def test_streams_that_outlive_a_term_are_taken_up_again(world: World) -> None:
    """The next term counts its orders from one; nothing of the older one may be mistaken for it."""
    async with world.lead() as manager:
        await world.put(concurrency=2)
        async with ScriptedRouter("r0", world.address) as router:
            for turn in range(10):
                await router.arrive(HELLO)
                await router.until(lambda turn=turn: sum(router.running.values()) == turn + 1)
            first = manager.loop().term
            await world.client.txn([], [Delete(world.keys.leader)])
            await router.until(lambda: router.term and router.term.revision > first[1])
            known = world.books.routers.by_id["r0-1"]
            for turn in range(10, 14):
                await router.arrive(HELLO)
                await router.until(lambda turn=turn: sum(router.running.values()) == turn + 1)
            await world.until(lambda: known.facts.unconfirmed_since() is None)
