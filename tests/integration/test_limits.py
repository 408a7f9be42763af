"""Limits, with a real Manager and scripted Routers: minimum, maximum, keep-warm of each action, and
how a full cluster makes room."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import pytest

from slotway.manager.plan import Phase
from tests.integration.manager_world import World
from tests.integration.scripted_router import ScriptedRouter

HELLO = "demo/hello"


def _ready(world: World, action: str = HELLO) -> list[str]:
    return [c.id for c in world.books.of(action) if c.phase is Phase.READY]


async def test_the_minimum_is_there_without_demand_and_stays(world: World) -> None:
    async with world.lead(keep_warm="100ms"):
        await world.put(concurrency=4, containers_min=2)
        await world.until(lambda: len(_ready(world)) == 2)
        before = _ready(world)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO, 8)
            await router.until(lambda: sum(router.running.values()) == 8)
            assert _ready(world) == before, "what was ready serves"
            await router.arrive(HELLO, 1)
            await router.until(lambda: sum(router.running.values()) == 9)
            assert len(_ready(world)) == 3
            await router.finish()
            await router.give_back()
            await world.until(lambda: len(_ready(world)) == 2)
            turn = router.turn
            await router.until(lambda: router.turn >= turn + 10)  # 100 ms have long passed
            assert len(_ready(world)) == 2
            assert len(world.engine.used) == 3
        victim, other = _ready(world)
        world.engine.end(victim)  # type: ignore[arg-type]
        await world.until(lambda: len(_ready(world)) == 2 and victim not in _ready(world))
        assert other in _ready(world)


async def test_a_new_revision_has_its_minimum_and_the_old_one_goes(world: World) -> None:
    async with world.lead():
        await world.put(containers_min=2)
        await world.until(lambda: len(_ready(world)) == 2)
        old = set(_ready(world))
        await world.put(containers_min=1, code=b"def main(args): return {}")
        await world.until(lambda: len(_ready(world)) == 1 and not old & set(_ready(world)))
        await world.put(containers_min=0)
        await world.until(lambda: not world.books.containers)


async def test_a_failing_minimum_backs_off_and_tries_again(world: World) -> None:
    world.engine.create_error = "no space left on device"
    async with world.lead():
        await world.put(containers_min=5)
        action = world.books.actions[HELLO]
        await world.until(lambda: action.failures == 2)
        assert len(list(world.books.of(HELLO))) <= 1, "one at a time"
        world.engine.create_error = ""
        await world.until(lambda: len(_ready(world)) == 5)


async def test_the_maximum_holds_for_all_revisions(world: World) -> None:
    async with world.lead():
        await world.put(containers_max=2)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(HELLO, 5)
            await router.until(lambda: sum(router.running.values()) == 2)
            await world.until(lambda: not world.books.dirty)
            assert len(world.engine.used) == 2
            old = _ready(world)
            await world.put(containers_max=2, code=b"def main(args): return {}")
            await router.until(lambda: [router.held[c] for c in old] == [0, 0])
            turn = router.turn
            await router.until(lambda: router.turn >= turn + 5)
            assert len(world.engine.used) == 2, "the old ones still run"
            await router.finish(1)
            await router.until(lambda: len(router.ended) == 1 and router.total(HELLO) == 1)
            assert len(world.engine.used) == 3
            await router.finish()
            while router.waiting[HELLO]:
                turn = router.turn
                await router.until(lambda turn=turn: router.turn > turn)
                await router.finish()
                assert len(_ready(world)) <= 2


async def test_each_action_has_its_own_keep_warm(world: World) -> None:
    async with world.lead(keep_warm="1h"):
        await world.put("demo/long")
        await world.put("demo/short", keep_warm_ms=200)
        async with ScriptedRouter("r0", world.address) as router:
            began_at = asyncio.get_running_loop().time()
            for name in ("demo/long", "demo/short"):
                await router.arrive(name)
                await router.until(lambda name=name: router.total(name))
            await router.finish()
            await router.give_back()
            await world.until(lambda: not _ready(world, "demo/short"))
            assert asyncio.get_running_loop().time() - began_at >= 0.2
            assert len(_ready(world, "demo/long")) == 1


async def test_a_full_cluster_takes_what_idles_with_shares_at_once(world: World) -> None:
    """No Router has given anything back; what runs, what is young and the minimum stay."""
    async with world.lead(containers_max=4, residence="100ms"):
        for name in ("demo/busy", "demo/first", "demo/last", "demo/new"):
            await world.put(name)
        await world.put("demo/kept", containers_min=1)
        async with ScriptedRouter("r0", world.address) as router:
            for name in ("demo/kept", "demo/first", "demo/last", "demo/busy"):
                await router.arrive(name)
                await router.until(lambda name=name: router.total(name))
            of = {router.action_of[c]: c for c in router.held}
            facts = world.books.routers.by_id["r0-1"].facts

            def idles(name: str) -> bool:
                return facts.idle_since(name, of[name], 1) is not None

            for name in ("demo/kept", "demo/first", "demo/last"):
                router.running[of[name]] = 0
                router.report()
                await world.until(partial(idles, name))
            await router.arrive("demo/new")
            await router.until(lambda: router.total("demo/new"))
            assert router.ended == [of["demo/first"]]
            assert len(world.engine.used) == 5
            await router.arrive("demo/first")
            await router.until(lambda: router.total("demo/first"))
            assert router.ended == [of["demo/first"], of["demo/last"]]
            assert router.total("demo/busy") == router.total("demo/kept") == 1


async def test_what_was_granted_a_moment_ago_is_not_taken_for_idle(world: World) -> None:
    """Its Router has not reported yet that requests run there."""
    async with world.lead(containers_max=2, residence="0s"):
        await world.put("demo/a")
        await world.put("demo/b")
        async with (
            ScriptedRouter("r0", world.address) as one,
            ScriptedRouter("r1", world.address) as other,
        ):
            await other.arrive("demo/b")
            await other.until(lambda: other.total("demo/b"))
            await one.arrive("demo/a")
            await one.until(lambda: one.total("demo/a"))
            one.paused = True
            await one.finish()
            (container,) = one.held
            await other.arrive("demo/b")
            turn = other.turn
            await other.until(lambda: other.turn >= turn + 3)
            assert world.books.containers[container].phase is Phase.READY
            one.paused = False
            one.report()
            await other.until(lambda: other.total("demo/b") == 2)


async def _keep_hot(router: ScriptedRouter, names: list[str], done: Counter[str]) -> None:
    """Requests of 10 ms each; more of them wait than the cluster will ever run."""
    while True:
        for container, running in router.running.items():
            done[router.action_of[container]] += running
            router.running[container] = 0
        for name in names:
            router.waiting[name] = 50
        router.report()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("containers_max", "names"), [(1, ["a", "b"]), (1, ["a", "b", "c"]), (3, ["a", "b"])]
)
async def test_hot_actions_all_progress_and_serve_for_a_while(
    world: World, containers_max: int, names: list[str]
) -> None:
    """Each has more demand than the whole cluster takes. The first one has it all to begin with."""
    names = [f"demo/{name}" for name in names]
    async with world.lead(containers_max=containers_max, residence="300ms"):
        for name in names:
            await world.put(name, concurrency=2)
        async with ScriptedRouter("r0", world.address) as router:
            await router.arrive(names[0], 50)
            await router.until(lambda: router.total(names[0]) == 2 * containers_max)
            done: Counter[str] = Counter()
            heating = asyncio.create_task(_keep_hot(router, names, done))
            now = asyncio.get_running_loop().time
            began_at, windows = now(), 4
            try:
                for _ in range(windows):
                    before = Counter(done)
                    async with asyncio.timeout(4):
                        while not all(done[name] > before[name] for name in names):
                            await asyncio.sleep(0.02)
                            assert len(world.engine.containers) <= containers_max
            finally:
                heating.cancel()
            spent = len(world.engine.used) - containers_max
            if containers_max > len(names):
                assert spent == 1, "they have their parts, and nothing moves any more"
            else:
                assert spent <= 1 + (now() - began_at) / 0.3
