"""The plan's promises: sums, evenness, exact folding, moves, fairness, and rest."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slotway.manager.plan import (
    ActionView,
    ContainerView,
    Order,
    Phase,
    RouterView,
    Share,
    fair,
    plan_action,
)
from tests.unit.plan_world import World

amounts = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 30), max_size=6)


@given(st.integers(0, 100), amounts, amounts)
def test_fair_shares_all_and_favours_nobody(
    supply: int, base: dict[str, int], want: dict[str, int]
) -> None:
    gains = fair(supply, base, want)
    assert sum(gains.values()) == min(supply, sum(want.values()))
    assert all(0 < gains[key] <= want[key] for key in gains)
    for richer, gain in gains.items():
        for poorer in want:
            if gains.get(poorer, 0) < want[poorer]:
                has = base.get(poorer, 0) + gains.get(poorer, 0)
                assert base.get(richer, 0) + gain <= has + 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    capacity=st.integers(1, 200),
    burst=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    data=st.data(),
)
def test_a_burst_creates_exactly_what_it_needs(
    capacity: int, burst: list[int], data: st.DataObject
) -> None:
    """However reports, orders and starts interleave, N requests on a cold action make ceil(N/C)."""
    world = World(capacity, len(burst))
    left = {f"r{i}": count for i, count in enumerate(burst) if count}
    total = sum(burst)
    for _ in range(60):
        step = data.draw(st.sampled_from(["arrive", "hear", "obey", "start", "plan"]))
        router = data.draw(st.sampled_from(sorted(world.routers)))
        if step == "arrive" and left.get(router):
            count = data.draw(st.integers(1, left[router]))
            left[router] -= count
            world.arrive(router, count)
        elif step == "hear":
            world.hear(router)
        elif step == "obey":
            world.obey(router)
        elif step == "start":
            world.start()
        else:
            world.plan()
    for router, count in left.items():
        if count:
            world.arrive(router, count)
    world.settle()
    assert world.created == -(-total // capacity)
    assert (world.waiting(), world.running()) == (0, total)


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 10, 64, 99, 100, 101, 200])
@pytest.mark.parametrize("routers", [1, 3])
def test_a_burst_of_100(capacity: int, routers: int) -> None:
    world = World(capacity, routers)
    for i in range(100):
        world.arrive(f"r{i % routers}")
        world.hear(f"r{i % routers}")
        world.plan()
    assert world.created == -(-100 // capacity)
    world.settle()
    assert (world.created, world.running()) == (-(-100 // capacity), 100)


@pytest.mark.parametrize(
    ("capacity", "routers", "expected"),
    [(10, 3, [3, 3, 4]), (3, 3, [1, 1, 1]), (200, 3, [66, 67, 67]), (7, 1, [7])],
)
def test_the_rest_is_spread_evenly(capacity: int, routers: int, expected: list[int]) -> None:
    world = World(capacity, routers)
    world.arrive("r0")
    world.settle()
    idle = [world.total(r) for r in world.routers]
    idle[0] -= 1  # what serves the demand comes first
    assert max(idle) - min(idle) <= 1
    assert sum(idle) == capacity - 1
    assert sum(expected) == capacity


def test_routers_beyond_the_slots_get_peers() -> None:
    world = World(2, 5)
    world.arrive("r3")
    world.hear("r3")
    decisions = world.plan()
    assert all(not peers for peers in decisions.peers.values()), "a container is being created"
    world.settle()
    decisions = world.plan()
    holders = sorted(r for r in world.routers if world.total(r))
    assert "r3" in holders
    assert len(holders) == 2
    for router, peers in decisions.peers.items():
        assert peers == ([] if router in holders else holders)


def test_idle_slots_move_rather_than_a_container_being_created() -> None:
    world = World(10, 3)
    world.arrive("r0")
    world.settle()
    world.finish("r0")
    world.settle()
    world.now += 1
    world.arrive("r1", 10)
    world.settle()
    assert (world.created, world.running(), world.waiting()) == (1, 10, 0)
    assert world.total("r1") == 10


@pytest.mark.parametrize("order", list(itertools.permutations(["r0", "r1", "r2"])))
def test_slots_given_up_for_stale_facts_are_used_before_anything_is_created(
    order: tuple[str, ...],
) -> None:
    """As many requests as there are slots come at once, and reports tell of it one by one: routers
    are told to give up slots that they have begun to use."""
    world = World(15, 3)
    world.arrive("r0")
    world.settle()
    world.finish("r0")
    world.settle()
    world.now += 1
    for router, count in {"r0": 8, "r1": 4, "r2": 3}.items():
        world.arrive(router, count)
    for router in order:
        while world.hear(router):
            world.plan()
    world.settle()
    assert (world.created, world.running()) == (1, 15)


def test_a_share_that_just_changed_is_left_for_a_moment() -> None:
    world = World(4, 2)
    world.arrive("r0")
    while not world.total("r1"):
        for router in world.routers:
            world.hear(router)
        world.start()
        world.plan()
    changed_at = world.now
    world.arrive("r0", 3)
    for router in world.routers:
        while world.obey(router):
            pass
        while world.hear(router):
            pass
    decisions = world.plan()
    assert (decisions.recalls, decisions.create) == ([], 0)
    assert decisions.wake_at == pytest.approx(changed_at + 0.1)
    world.settle()
    assert (world.running(), world.created) == (4, 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.lists(st.integers(0, 20), min_size=2, max_size=4))
def test_when_full_the_shares_become_max_min_fair(capacity: int, burst: list[int]) -> None:
    """Busy slots move too, as their requests end; and then nothing moves any more."""
    world = World(capacity, len(burst), room=2)
    for i, count in enumerate(burst):
        if count:
            world.arrive(f"r{i}", count)
            world.settle()
    pool = capacity * len(world.containers)
    for _ in range(4 * pool + 20):  # requests end one by one, while as many others arrive
        world.now += 1
        for router in world.routers:
            it = world.routers[router]
            if sum(it.running.values()):
                world.finish(router, 1)
        world.settle()
    wants = {f"r{i}": count for i, count in enumerate(burst)}
    if sum(burst) >= 2 * capacity:
        got = sorted(world.total(r) for r in wants)
        ideal = sorted(fair(pool, {}, wants).get(r, 0) for r in wants)
        assert got == ideal
    before = world.recalled
    for _ in range(10):
        world.now += 1
        world.settle()
    assert world.recalled == before, "slots go to and fro"


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_history_comes_to_rest_with_nobody_waiting_beside_idle_slots(
    data: st.DataObject,
) -> None:
    world = World(data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4)), room=3)
    for _ in range(80):
        router = data.draw(st.sampled_from(sorted(world.routers)))
        step = data.draw(st.sampled_from(["arrive", "finish", "hear", "obey", "start", "plan"]))
        if step == "plan":
            world.plan()
            world.now += data.draw(st.sampled_from([0.0, 0.03, 0.2]))
        elif step == "start":
            world.start()
        else:
            getattr(world, step)(router)
    world.settle()
    capacity = world.capacity * len(world.containers)
    # What a router was told to give up comes back when all of the surplus has ended.
    held_up = sum(
        slots - max(world.routers[router].held.get(name, 0), world.routers[router].running[name])
        for name, container in world.containers.items()
        for router, slots in container.shares.items()
        if world.routers[router].running.get(name, 0) > world.routers[router].held.get(name, 0)
    )
    assert world.waiting() == 0 or world.running() + held_up == capacity, world
    assert len(world.containers) <= 3


def _view(containers: list[ContainerView], routers: list[RouterView], **more: float) -> ActionView:
    room, now = int(more.get("room", 10)), more.get("now", 100.0)
    return ActionView("a/b", int(more.get("revision", 1)), 4, containers, routers, room, now)


def test_facts_of_silent_routers_do_not_count() -> None:
    shares = {"silent": Share(4, 4, 4, 0.0)}
    containers = [ContainerView("c", 1, Phase.READY, 4, 0, shares)]
    silent = RouterView("silent", waiting=50, fresh=False, silent_since=90.0)
    decisions = plan_action(_view(containers, [silent, RouterView("live", waiting=4)]))
    assert (decisions.create, decisions.recalls, decisions.drains) == (1, [], [])


def test_a_silent_routers_container_is_drained_only_when_needed_and_late() -> None:
    shares = {"silent": Share(3, 3, 3, 0.0), "live": Share(1, 1, 0, 0.0)}
    containers = [ContainerView("c", 1, Phase.READY, 4, 0, shares)]
    routers = [
        RouterView("silent", fresh=False, silent_since=50.0),
        RouterView("live", waiting=2),
    ]
    assert plan_action(_view(containers, routers)).drains == []
    early = plan_action(_view(containers, routers, room=0, now=79.0))
    assert (early.drains, early.wake_at, early.unmet) == ([], 80.0, 2)
    late = plan_action(_view(containers, routers, room=0, now=80.0))
    assert [container for container, _ in late.drains] == ["c"]


def test_containers_that_only_vanished_routers_used_are_destroyed() -> None:
    gone = RouterView("gone", known=False, fresh=False, vanished=True)
    alone = ContainerView("alone", 1, Phase.READY, 4, 0, {"gone": Share(4, 4, 0, 0.0)})
    shares = {"gone": Share(2, 2, 0, 0.0), "live": Share(2, 2, 2, 0.0)}
    shared = ContainerView("shared", 1, Phase.READY, 4, 0, shares)
    decisions = plan_action(_view([alone, shared], [gone, RouterView("live")]))
    assert [container for container, _ in decisions.destroys] == ["alone"]
    assert decisions.drains == []
    decisions = plan_action(_view([shared], [gone, RouterView("live", waiting=9)]))
    assert [container for container, _ in decisions.drains] == ["shared"]


def test_a_late_lowering_is_undone_and_does_not_count_as_movable() -> None:
    shares = {"slow": Share(4, 0, 0, 99.95)}
    containers = [ContainerView("c", 1, Phase.READY, 4, 0, shares)]
    routers = [RouterView("slow"), RouterView("live", waiting=4)]
    early = plan_action(_view(containers, routers))
    assert early.create == 0
    assert early.wake_at == pytest.approx(100.05)
    late = plan_action(_view(containers, routers, now=100.06))
    assert (late.create, late.recalls) == (0, [Order("c", "slow", 4)])
    shares["slow"] = Share(4, 4, 0, 100.06)  # so it reports that all of it is busy
    assert plan_action(_view(containers, routers, now=100.07)).create == 1
    shares["slow"] = Share(4, 0, 0, 99.95)
    shares["slow"].confirmed = False  # its machine is busy, for all that is known
    assert plan_action(_view(containers, routers, now=100.06)).create == 0


def test_routers_whose_slots_may_idle_are_asked_before_anything_is_created() -> None:
    """A router tells once in a period what became idle; the demand of another comes at once."""
    shares = {"left": Share(4, 4, 0, 0.0), "full": Share(2, 2, 0, 0.0)}
    containers = [ContainerView("c", 1, Phase.READY, 6, 0, shares)]
    left, full = RouterView("left", behind=True), RouterView("full", waiting=2, behind=True)
    view = _view(containers, [left, full, RouterView("bare", behind=True)])
    first = plan_action(view)
    assert (first.ask, first.create, first.unmet) == (["left"], 0, 0), "who waits has nothing idle"
    assert first.wake_at == pytest.approx(100.3)
    view.asked_at, view.now = 100.0, 100.29
    assert plan_action(view).create == 0
    left.behind = False  # it has answered: it is busy
    assert (plan_action(view).ask, plan_action(view).create) == ([], 1)
    left.behind, view.now = True, 100.31  # it takes too long
    assert plan_action(view).create == 1
    left.behind, shares["left"].idle = False, 3  # it has answered: it is not
    settled = plan_action(view)
    assert (settled.create, settled.recalls) == (0, [Order("c", "left", 2)])


def test_what_an_undone_lowering_brought_counts_when_a_report_has_seen_it() -> None:
    """All of it may be busy. It was lowered and raised again by turns, and nothing was created."""
    busy = Share(3, 3, 3, changed_at=100.0, confirmed=False, raised_at=100.0)
    containers = [ContainerView("c", 1, Phase.READY, 3, 0, {"busy": busy})]
    view = _view(containers, [RouterView("busy"), RouterView("live", waiting=2)], now=100.05)
    assert plan_action(view).wake_at == pytest.approx(100.1)
    view.now = 100.11
    asked = plan_action(view)
    assert (asked.ask, asked.create, asked.recalls) == (["busy"], 0, [])
    view.asked_at, view.now = 100.11, 100.42
    assert plan_action(view).create == 1, "there is no answer"
    view.now, busy.confirmed = 100.12, True
    assert plan_action(view).recalls == [Order("c", "busy", 1)]
    busy.idle = 0
    assert plan_action(view).create == 1


def test_slots_leave_though_others_of_their_share_left_a_moment_ago() -> None:
    """Demand is told piece by piece, and must not wait for a share to settle each time."""
    shares = {"left": Share(5, 5, 5, changed_at=99.99, raised_at=50.0)}
    containers = [ContainerView("c", 1, Phase.READY, 5, 0, shares)]
    routers = [RouterView("left"), RouterView("live", waiting=4)]
    assert plan_action(_view(containers, routers)).recalls == [Order("c", "left", 1)]
    shares["left"].raised_at = 99.99  # these came a moment ago
    early = plan_action(_view(containers, routers))
    assert (early.recalls, early.create) == ([], 0)
    assert early.wake_at == pytest.approx(100.09)


def test_stuck_and_restarted_routers_get_less() -> None:
    containers = [ContainerView("c", 1, Phase.READY, 4, 4, {}, unspread=True)]
    routers = [
        RouterView("stuck", waiting=2, stuck=True),
        RouterView("again", restarted=True),
        RouterView("live"),
    ]
    decisions = plan_action(_view(containers, routers))
    assert [(o.router, o.target) for o in decisions.grants] == [("live", 4)]


@pytest.mark.parametrize(
    ("minimum", "waiting", "room", "create", "missing"),
    [
        (3, 0, 10, 3, 0),
        (3, 9, 10, 3, 0),  # what serves the demand counts
        (3, 20, 10, 5, 0),
        (3, 0, 2, 2, 1),
        (3, 20, 2, 2, 1),
        (0, 0, 10, 0, 0),
    ],
)
def test_the_minimum_is_created_folded_with_the_demand(
    minimum: int, waiting: int, room: int, create: int, missing: int
) -> None:
    view = _view([], [RouterView("a", waiting=waiting)], room=room)
    view.minimum = minimum
    decisions = plan_action(view)
    assert (decisions.create, decisions.missing) == (create, missing)


def test_what_is_ready_or_comes_counts_for_the_minimum() -> None:
    ready = ContainerView("ready", 1, Phase.READY, 4, 4, {})
    comes = ContainerView("comes", 1, Phase.COMING, 4, 4, {})
    old = ContainerView("old", 7, Phase.READY, 4, 4, {})
    view = _view([ready, comes, old], [RouterView("a")])
    view.minimum = 3
    assert plan_action(view).create == 1
    view.minimum = 2
    assert plan_action(view).create == 0


def test_other_revisions_drain_and_end() -> None:
    old = ContainerView("old", 1, Phase.READY, 4, 2, {"a": Share(2, 2, 1, 0.0)})
    new = ContainerView("new", 2, Phase.READY, 4, 4, {})
    spent = ContainerView("spent", 1, Phase.DRAINING, 4, 4, {})
    decisions = plan_action(_view([old, new, spent], [RouterView("a")], revision=2))
    assert decisions.drains == [("old", "the action was updated")]
    assert [(o.container, o.target) for o in decisions.recalls] == [("old", 0)]
    assert decisions.destroys == [("spent", "")]
    assert decisions.grants == []
    gone = plan_action(_view([new], [RouterView("a", waiting=5)], revision=0))
    assert (gone.drains, gone.create) == ([("new", "the action was deleted")], 0)
