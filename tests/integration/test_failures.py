"""Failing containers, with a real Manager and scripted Routers: back-off, reasons, crash loops."""

from __future__ import annotations

import asyncio

import pytest

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
