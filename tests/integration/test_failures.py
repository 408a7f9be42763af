"""Failing containers, with a real Manager and scripted Routers: back-off, reasons, crash loops."""

from __future__ import annotations

import asyncio

import pytest

from slotway.aio import Client
from slotway.drivers.base import ContainerId
from slotway.manager.action import SHORT_S
from tests.integration.manager_world import World
from tests.integration.scripted_router import ScriptedRouter

HELLO = "demo/hello"


async def test_a_crash_loop_backs_off_and_its_waiters_get_the_reason(world: World) -> None:
    """Every container comes to serve, and crashes with the first request."""
    async with world.lead():
        await world.put()
        async with ScriptedRouter("r0", world.address) as router:
            now = asyncio.get_running_loop().time
            began_at = now()
            while not router.refusals:
                assert len(world.engine.used) <= 3, "nothing holds it back"
                if not router.waiting.get(HELLO):
                    await router.arrive(HELLO)
                await router.until(lambda: router.running or router.refusals)
                for container in list(router.running):
                    world.engine.end(ContainerId(container), "exit code 1")
                    await router.until(lambda c=container: c in router.ended)
            (refusal,) = router.refusals
            assert refusal.reason == "CREATE_FAILED"
            assert "crash soon after they come to serve" in refusal.message
            assert "exit code 1" in refusal.message
            assert refusal.HasField("retry_delay")
            assert len(world.engine.used) == 3
            assert now() - began_at >= 0.4, "the third one waited"
            action = world.books.actions[HELLO]
            await world.until(lambda: action.pause_until(now()) is None)
            await router.arrive(HELLO)
            await router.until(lambda: router.running)
            assert len(world.engine.used) == 4


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
                ended = (await client.cluster(with_ended=True)).ended
                assert [one.crashed for one in ended] == [False, True, False, False]
                assert ended[0].reason == "it was idle"
                assert ended[0].HasField("served")
                assert (ended[1].id, ended[1].reason) == (crashed, "it ended by itself: SIGSEGV")
                assert ended[3].reason == "it did not come to serve: no space left on device"
                assert not ended[3].HasField("served")
