"""Bugs that the simulation found in Slotway, each as a story of its own (docs/track-record.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.simulation.world import Findings, World

Story = Callable[[World], Awaitable[None]]


def told(story: Story) -> Findings:
    """Plays the story; every message takes a millisecond."""
    world = World(0, events=0)
    world.play = story
    world.network.delay = lambda source, target: 0.001  # type: ignore[method-assign]
    world.engine.numbered = False
    return world.run()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  (time is virtual)
            await asyncio.sleep(0.01)


async def two_routers(world: World, capacity: int) -> None:
    """One container, shared by two Routers; the term is newer than its slots."""
    world.actions["guest/a"] = capacity
    await world.loop.spawn(world.client, world.put_action("guest/a", capacity), "put")
    first, second, third = world.routers
    third.kill()
    await until(lambda: any(one.leads for one in world.managers))
    world.invoke(first, "guest/a", 0.01)
    await until(lambda: bool(second.plane.table.holdings() and first.plane.table.holdings()))
    (leader,) = [one for one in world.managers if one.leads]
    await leader.stop()
    await until(lambda: any(one.leads for one in world.managers))
    await asyncio.sleep(0.5)


def test_slots_that_are_given_back_are_not_forced_upon_their_router() -> None:
    """A new leader has ordered nothing yet, so the gift is ordered anew: the plan took that order
    for one of its own that was long overdue, took it back, and created a container instead."""

    async def story(world: World) -> None:
        await two_routers(world, 4)
        first, second, _ = world.routers
        second.plane.give_back(1)
        await asyncio.sleep(0.01)
        held = first.plane.idle("guest/a")
        assert 0 < held < 4
        created = world.engine.created
        second.plane.give_back(1)  # now they have idled
        requests = [world.invoke(first, "guest/a", 5.0) for _ in range(held + 1)]
        await asyncio.sleep(0.05)
        assert all(world.engine.runs[one.number] for one in requests)
        assert world.engine.created == created

    failures = told(story).failures
    assert failures == [], "\n".join(failures)


def test_a_request_is_not_refused_while_slots_of_its_action_idle_elsewhere() -> None:
    """Its action's containers fail to start at present. It needs none."""

    async def story(world: World) -> None:
        await two_routers(world, 4)
        first, second, _ = world.routers
        world.engine.init_fails = 1.0
        busy = [
            world.invoke(router, "guest/a", 5.0)
            for router in (first, second)
            for _ in range(router.plane.idle("guest/a"))
        ]
        assert len(busy) == 4
        hopeless = world.invoke(first, "guest/a")
        await until(lambda: bool(hopeless.outcome))
        assert hopeless.outcome == "INIT_FAILED"
        world.engine.finish(busy[0].number)
        await asyncio.sleep(0.01)
        waiting = world.invoke(second, "guest/a", 0.01)
        await until(lambda: bool(waiting.outcome))
        assert waiting.outcome == "answer"

    failures = told(story).failures
    assert failures == [], "\n".join(failures)


def test_a_container_retires_when_its_grace_is_over_and_not_at_the_next_look() -> None:
    """Containers are looked at once a second, and the grace is a second: it took up to two, and the
    container went while others counted on it."""

    async def overrun(world: World) -> None:
        first = world.routers[0]
        late = world.invoke(first, "guest/a", 1000.0)
        await until(lambda: late.outcome == "ACTION_TIMEOUT")
        (used,) = (name for name, one in world.engine.containers.items() if one.runs)
        world.engine.finish(late.number)
        since = world.loop.time()
        await until(lambda: world.checks.states[used] != "CONTAINER_STATE_READY")
        assert 0.99 <= world.loop.time() - since <= 1.2
        world.invoke(first, "guest/a", 0.01)
        await until(lambda: bool(first.plane.idle("guest/a")))

    async def story(world: World) -> None:
        await two_routers(world, 4)
        for _ in range(5):
            await overrun(world)
            await asyncio.sleep(0.23)  # so that each comes at another moment between two looks

    failures = told(story).failures
    assert failures == [], "\n".join(failures)
