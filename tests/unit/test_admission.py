"""The cluster's room is shared in turns, and idle containers make way."""

from __future__ import annotations

from slotway.manager.plan import Idle, Room, Wish, admit

NOTHING = Room(0, 0)


def test_wishes_take_turns() -> None:
    admission = admit(Room(5, 10_000), NOTHING, [Wish("a", 100, 256), Wish("b", 2, 256)], [])
    assert admission.create == {"a": 3, "b": 2}
    assert admission.evict == []


def test_memory_is_a_limit_too() -> None:
    admission = admit(Room(100, 1_000), NOTHING, [Wish("a", 10, 300)], [])
    assert admission.create == {"a": 3}


def test_the_longest_idle_of_other_actions_are_evicted_as_far_as_needed() -> None:
    idle = [Idle("new", "b", 256, 9.0), Idle("old", "b", 256, 1.0), Idle("own", "a", 256, 0.0)]
    admission = admit(NOTHING, NOTHING, [Wish("a", 1, 256)], idle)
    assert (admission.create, admission.evict) == ({}, ["old"])
    assert admit(NOTHING, Room(1, 256), [Wish("a", 1, 256)], idle).evict == []
    assert admit(NOTHING, NOTHING, [Wish("a", 1, 512)], idle).evict == ["old", "new"]
    assert admit(NOTHING, NOTHING, [Wish("a", 9, 256)], idle).evict == ["old", "new"]
