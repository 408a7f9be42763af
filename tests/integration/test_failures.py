"""Failing containers, with a real Manager and scripted Routers: back-off, reasons, crash loops."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from slotway.aio import Client
from slotway.drivers.base import ContainerId, ContainerSpec, EndedLoadingError
from slotway.drivers.fake import FakeDriver
from slotway.manager.action import SHORT_S
from slotway.v1 import manager_pb2 as pb
from tests.integration.manager_world import World
from tests.integration.scripted_router import ScriptedRouter

HELLO = "demo/hello"


@pytest.mark.parametrize("told_first", [False, True])
async def test_a_crash_loop_backs_off_and_is_told(world: World, told_first: bool) -> None:
    """Every container comes to serve, and crashes with the first request: its engine tells that,
    or before it the Router, whose connection broke."""
    async with world.lead():
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            began_at = asyncio.get_running_loop().time()
            for crashes in range(3):
                await router.arrive(HELLO)
                await router.until(lambda: router.running)
                (container,) = router.running
                if told_first:
                    trouble = pb.ContainerTrouble(
                        container_id=container, kind=pb.ContainerTrouble.KIND_OVERRUN, slots=1
                    )
                    router.send(pb.AttachRequest(troubles=[trouble]))
                    await router.until(lambda c=container: router.held.get(c) == 0)
                world.engine.end(ContainerId(container), "exit code 1")
                await router.until(lambda c=container: c in router.ended)
                assert world.books.actions[HELLO].crashes == crashes + 1
            waited_s = asyncio.get_running_loop().time() - began_at
            assert waited_s >= 0.4, "the third one waited"
            assert not router.refusals
            trouble_told = world.books.actions[HELLO].trouble(began_at + waited_s)
            assert trouble_told is not None
            assert trouble_told.failures == 3
            assert "exit code 1" in trouble_told.reason


async def test_the_crash_of_a_container_that_served_for_long_is_none_of_a_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SHORT_S > 0
    monkeypatch.setattr("slotway.manager.action.SHORT_S", 0.0)
    async with world.lead():
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            for _ in range(8):
                await router.arrive(HELLO)
                await router.until(lambda: router.running)
                (container,) = router.running
                world.engine.end(ContainerId(container))
                await router.until(lambda c=container: c in router.ended)
            assert world.books.actions[HELLO].crashes == 1


async def test_crashes_beside_a_container_that_goes_on_are_none_of_a_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody kills them, or some requests do; the others shall not wait for that."""
    monkeypatch.setattr("slotway.manager.action.SHORT_S", 0.3)
    async with world.lead():
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.running)
            (old,) = router.running
            await asyncio.sleep(0.3)
            for _ in range(5):
                await router.arrive(HELLO)
                await router.until(lambda: len(router.running) == 2)
                (young,) = set(router.running) - {old}
                world.engine.end(ContainerId(young))
                await router.until(lambda c=young: c in router.ended)
                assert world.books.actions[HELLO].crashes == 1


async def test_what_goes_wrong_is_shown(world: World) -> None:
    world.engine.create_error = "no space left on device"
    async with world.lead(keep_warm="100ms"):
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            action = world.books.actions[HELLO]
            await world.until(lambda: action.failures == 2)
            async with Client(world.address) as client:
                trouble = await client.get_trouble(HELLO)
                assert trouble is not None
                assert (trouble.failures, trouble.reason) == (2, "no space left on device")
                assert trouble.HasField("pause")
                world.engine.create_error = ""
                await router.until(lambda: router.running)
                assert await client.get_trouble(HELLO) is None
                (crashed,) = router.running
                world.engine.end(ContainerId(crashed), "SIGSEGV")
                await router.until(lambda: crashed in router.ended)
                trouble = await client.get_trouble(HELLO)
                assert trouble is not None
                assert (trouble.failures, trouble.reason) == (1, "it ended by itself: SIGSEGV")
                assert not trouble.HasField("pause"), "the first one is replaced at once"
                await router.arrive(HELLO)
                await router.until(lambda: router.running)
                await router.finish()
                await router.give_back()
                await world.until(lambda: not world.books.containers)
                assert not (await client.cluster()).ended
                assert not world.engine.containers
                ended = (await client.cluster(with_ended=True)).ended
                assert [one.crashed for one in ended] == [False, True, False, False]
                assert ended[0].reason == "it was idle"
                assert ended[0].HasField("served")
                assert (ended[1].id, ended[1].reason) == (crashed, "it ended by itself: SIGSEGV")
                assert ended[3].reason == "it did not come to serve: no space left on device"
                assert not ended[3].HasField("served")


async def test_the_engine_tells_why_a_container_ended_that_loaded_its_code(world: World) -> None:
    """The connection of its init breaks before the engine says so."""

    class Driver(FakeDriver):
        async def init(self, container: ContainerId, *more: Any) -> None:
            asyncio.get_running_loop().call_later(
                0.1, self.fake.end, container, "it used more memory than its limit"
            )
            raise EndedLoadingError

    world.driver_of = Driver
    async with world.lead():
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await router.until(lambda: router.refusals)
            assert router.refusals[0].reason == "INIT_FAILED"
            assert "it used more memory than its limit" in router.refusals[0].message


@pytest.mark.parametrize("hangs", ["create", "init"])
async def test_a_driver_that_hangs_and_cannot_be_cancelled_keeps_no_container(
    world: World, hangs: str
) -> None:
    """Every passing state has its deadline; the waiters get a reason, and the next try serves."""
    release = asyncio.Event()
    hung: list[str] = []

    async def hang(container: str) -> None:
        hung.append(container)
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    class Driver(FakeDriver):
        async def create(self, spec: ContainerSpec) -> None:
            if hangs == "create" and not hung:
                await hang(spec.label.id)
            await super().create(spec)

        async def init(self, container: ContainerId, *more: Any) -> None:
            if hangs == "init" and not hung:
                await hang(container)
            await super().init(container, *more)

    world.driver_of = Driver
    async with world.lead(create_timeout="1s", init_timeout="1s"):
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO)
            await world.until(lambda: hung)
            (first,) = world.books.containers
            await world.until(lambda: first not in world.books.containers)
            error = world.books.actions[HELLO].error
            assert error is not None
            assert "after 1 s" in str(error)
            while not router.running:
                if not router.waiting.get(HELLO):
                    await router.arrive(HELLO)
                await router.until(lambda: router.running or not router.waiting.get(HELLO))
        release.set()


async def test_a_router_that_crash_loops_strands_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five incarnations come, run requests and crash. Nothing that runs for others is cut off, no
    container ever runs more than C requests, and in the end the whole capacity is there again."""
    monkeypatch.setattr("slotway.manager.routers.PROBE_S", 0.1)
    crashed: list[ScriptedRouter] = []

    def check(*routers: ScriptedRouter) -> None:
        for container in world.engine.containers:
            running = [router.running.get(container, 0) for router in (*crashed, *routers)]
            assert sum(running) <= 4, "more than C run"

    async with (
        world.lead(containers_max=4),
        ScriptedRouter("a", world.address) as a,
        ScriptedRouter("b", world.address) as b,
    ):
        await world.put(concurrency=4)
        for router in (a, b):
            await router.arrive(HELLO, 3)
            await router.until(lambda router=router: sum(router.running.values()) == 3)
        for number in range(5):
            again = ScriptedRouter("again", world.address, f"again-{number}")
            async with asyncio.timeout(10):
                while again.term is None:  # its name is free when the one before is silent
                    await again.close()
                    again.open()
                    await again.until(lambda r=again: r.term is not None or r.error is not None)
            await again.arrive(HELLO, 3)
            await again.until(lambda r=again: sum(r.running.values()) == 3)
            await again.close()
            crashed.append(again)
            check(a, b)
            for router in (
                a,
                b,
            ):  # they serve on; an end would take what runs
                assert sum(router.running.values()) == 3
                await router.finish(1 + number % 3)
                await router.arrive(HELLO, 1 + number % 3)
                await router.until(lambda router=router: sum(router.running.values()) == 3)
            check(a, b)
        async with asyncio.timeout(20):  # slots that went with it come back when they are missed
            while any("again" in holder for one in world.recorded() for holder in one.shares):
                for router in (a, b):
                    await router.finish()
                    await router.arrive(HELLO, 8 - router.waiting[HELLO])
                turn = a.turn
                await a.until(lambda turn=turn: a.turn > turn)
                check(a, b)
        await world.until(lambda: sum([*a.running.values(), *b.running.values()]) == 16)
        assert len(world.engine.containers) == 4
        check(a, b)
