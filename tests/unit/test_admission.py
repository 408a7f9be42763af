"""The cluster's room is shared in turns, and idle containers make way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slotway.manager.plan import Held, Inventory, Room, Wish, admit, reach

NOW = 100.0


def inventory(*held: Held, limits: Room, **more: object) -> Inventory:
    settings: dict[str, object] = {"now": NOW, "residence_s": 1.0, **more}
    return Inventory(limits, held, **settings)  # type: ignore[arg-type]


def idle(name: str, action: str, at: float, memory_mib: int = 256) -> Held:
    return Held(name, action, memory_mib, ready_at=0.0, idle_at=at)


def shared(name: str, action: str, at: float | None, ready_at: float = 0.0) -> Held:
    return Held(name, action, 256, ready_at, idle_at=at, shared=True)


def full(*held: Held, **more: object) -> Inventory:
    """Neither a container nor memory is left."""
    taken = sum(one.memory_mib for one in held)
    return inventory(*held, limits=Room(len(held), taken), **more)


def test_wishes_take_turns() -> None:
    empty = inventory(limits=Room(5, 10_000))
    admission = admit(empty, [Wish("a", 100, 256), Wish("b", 2, 256)])
    assert admission.create == {"a": 3, "b": 2}
    assert admission.evict == []


def test_the_poorest_comes_first_and_then_who_waited_longest() -> None:
    a1, a2, b1 = (Held(name, name[0], 256) for name in ("a1", "a2", "b1"))
    one_left = inventory(a1, a2, b1, limits=Room(4, 10_000))
    assert admit(one_left, [Wish("a", 1, 256, 1.0), Wish("b", 1, 256, 9.0)]).create == {"b": 1}
    equals = inventory(limits=Room(1, 10_000))
    assert admit(equals, [Wish("a", 1, 256, 9.0), Wish("b", 1, 256, 1.0)]).create == {"b": 1}


def test_memory_is_a_limit_too() -> None:
    admission = admit(inventory(limits=Room(100, 1_000)), [Wish("a", 10, 300)])
    assert admission.create == {"a": 3}


def test_the_longest_idle_of_other_actions_are_evicted_as_far_as_needed() -> None:
    held = idle("new", "b", 9.0), idle("old", "b", 1.0), idle("own", "a", 0.0)
    admission = admit(full(*held), [Wish("a", 1, 256)])
    assert (admission.create, admission.evict) == ({}, ["old"])
    assert admit(full(*held), [Wish("a", 1, 512)]).evict == ["old", "new"]
    assert admit(full(*held), [Wish("a", 9, 256)]).evict == ["old", "new"]
    ends = inventory(*held, limits=Room(4, 1024), ending=Room(1, 256))
    assert admit(ends, [Wish("a", 1, 256)]).evict == []
    assert admit(ends, [Wish("a", 2, 256)]).evict == ["old"]


def test_nothing_is_evicted_in_vain() -> None:
    held = idle("one", "b", 1.0), idle("two", "b", 2.0), shared("young", "c", None, ready_at=NOW)
    assert admit(full(*held), [Wish("a", 1, 600)]).evict == []
    assert admit(full(*held), [Wish("a", 1, 512)]).evict == ["one", "two"]


def test_shares_that_idle_make_way_after_containers_without_any() -> None:
    held = (
        shared("used", "b", 50.0),
        shared("longer", "b", 20.0),
        shared("busy", "b", None),
        shared("young", "b", 10.0, ready_at=NOW - 0.9),
        idle("free", "b", 90.0),
    )
    for count, evicted in enumerate((["free"], ["free", "longer"], ["free", "longer", "used"]), 1):
        assert admit(full(*held), [Wish("a", count, 256)]).evict == evicted


@pytest.mark.parametrize(("spare", "evicted"), [(-1, []), (0, []), (1, ["b1"]), (2, ["b1", "b2"])])
def test_nothing_is_evicted_below_the_minimum(spare: int, evicted: list[str]) -> None:
    held = idle("b1", "b", 1.0), shared("b2", "b", 2.0)
    assert admit(full(*held, spare={"b": spare}), [Wish("a", 2, 256)]).evict == evicted


def test_room_that_was_made_for_one_wish_is_not_given_to_another() -> None:
    """The large one waits for the end of a small container; the small one must not snatch."""
    held = Held("a1", "a", 256), Held("a2", "a", 256)
    later = inventory(*held, limits=Room(9, 1024), ending=Room(1, 256))
    wishes = [Wish("a", 1, 256), Wish("large", 1, 512)]
    admission = admit(later, wishes)
    assert (admission.create, admission.evict) == ({}, [])


def test_idle_containers_make_way_rather_than_a_wish_waiting_for_requests_to_end() -> None:
    drains = Room(1, 256)
    waits = inventory(shared("busy", "b", None), limits=Room(2, 512), draining=drains)
    assert admit(waits, [Wish("a", 1, 256)]).evict == []
    idles = inventory(shared("idle", "b", 1.0), limits=Room(2, 512), draining=drains)
    assert admit(idles, [Wish("a", 1, 256)]).evict == ["idle"]


def test_reach_counts_what_makes_way_sooner_or_later() -> None:
    held = shared("young", "b", 99.9, ready_at=NOW - 0.1), idle("own", "a", 0.0)
    some = inventory(*held, limits=Room(4, 10_000), draining=Room(1, 256))
    assert admit(some, [Wish("a", 9, 256)]).evict == []
    assert reach(some, Wish("a", 9, 256)) == 3
    assert reach(some, Wish("a", 2, 256)) == 2
    assert reach(inventory(*held, limits=Room(4, 10_000), spare={"b": 0}), Wish("a", 9, 256)) == 2


def busy(name: str, ready_at: float = 0.0) -> Held:
    """Of the action that its name begins with."""
    return shared(name, name[0], None, ready_at)


def test_the_richest_gives_what_has_been_ready_longest() -> None:
    held = [busy(f"b{i}", float(10 - i)) for i in range(4)]
    held += [busy("c0"), busy("c1"), busy("c2")]
    admission = admit(full(*held), [Wish("a", 1, 256)])
    assert (admission.create, admission.evict, admission.retire) == ({}, [], ["b3"])
    assert admit(full(*held), [Wish("a", 2, 256)]).retire == ["b3", "c0"]
    young = [replace(one, ready_at=NOW - 0.5) if one.action == "b" else one for one in held]
    assert admit(full(*young), [Wish("a", 1, 256)]).retire == ["c0"]


def test_nobody_gives_what_it_would_be_given_back() -> None:
    has_one = busy("a0"), busy("b0"), busy("b1")
    assert admit(full(*has_one), [Wish("a", 1, 256)]).retire == []
    assert reach(full(*has_one), Wish("a", 1, 256)) == 0
    assert admit(full(*has_one, busy("b2")), [Wish("a", 9, 256)]).retire == ["b0"]
    assert reach(full(*has_one, busy("b2")), Wish("a", 9, 256)) == 1


def test_who_has_nothing_takes_turns_but_the_minimum_stays() -> None:
    assert admit(full(busy("b0")), [Wish("a", 9, 256)]).retire == ["b0"]
    assert admit(full(busy("b0"), spare={"b": 0}), [Wish("a", 9, 256)]).retire == []
    assert admit(full(busy("b0"), busy("b1"), spare={"b": 1}), [Wish("a", 9, 256)]).retire == ["b0"]


def test_what_drains_already_is_waited_for() -> None:
    drains = inventory(busy("b0"), busy("b1"), limits=Room(3, 768), draining=Room(1, 256))
    assert admit(drains, [Wish("a", 1, 256)]).retire == []
    assert admit(drains, [Wish("c", 1, 256), Wish("a", 1, 256)]).retire == ["b0"]
    large = inventory(idle("free", "b", 1.0), limits=Room(3, 768), draining=Room(1, 512))
    assert admit(large, [Wish("a", 1, 512)]).evict == [], "it would not be enough by itself"


def test_what_idles_goes_before_what_is_in_use_also_for_a_large_wish() -> None:
    held = busy("b0"), busy("b1"), busy("b2"), idle("free", "b", 1.0)
    admission = admit(full(*held), [Wish("a", 1, 512)])
    assert (admission.evict, admission.retire) == (["free"], ["b0"])
