"""What holds for every admission, and what a cluster comes to when it is asked again and again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slotway.manager.plan import Held, Inventory, Room, Wish, admit, reach

NOW = 100.0
actions = st.sampled_from("abcd")
held_ones = st.builds(
    Held,
    id=st.uuids().map(str),
    action=actions,
    memory_mib=st.sampled_from([64, 128, 256]),
    ready_at=st.one_of(st.none(), st.floats(NOW - 2, NOW)),
    idle_at=st.one_of(st.none(), st.floats(NOW - 2, NOW)),
    shared=st.booleans(),
)
inventories = st.builds(
    Inventory,
    limits=st.builds(Room, st.integers(1, 12), st.integers(64, 2048)),
    held=st.lists(held_ones, max_size=10),
    ending=st.builds(Room, st.integers(0, 2), st.sampled_from([0, 64, 256])),
    draining=st.builds(Room, st.integers(0, 2), st.sampled_from([0, 64, 256])),
    spare=st.dictionaries(actions, st.integers(-1, 3)),
    now=st.just(NOW),
    residence_s=st.just(1.0),
)
wish_lists = st.lists(
    st.builds(Wish, actions, st.integers(1, 6), st.sampled_from([64, 128, 256, 512])),
    max_size=4,
    unique_by=lambda wish: wish.action,
)


@settings(max_examples=400, deadline=None)
@given(inventories, wish_lists)
def test_what_every_admission_keeps_to(inventory: Inventory, wishes: list[Wish]) -> None:
    admission = admit(inventory, wishes)
    assert admit(inventory, wishes) == admission
    held = {one.id: one for one in inventory.held}
    wish_of = {wish.action: wish for wish in wishes}
    taken = Counter(held[name].action for name in admission.evict + admission.retire)
    assert len(set(admission.evict + admission.retire)) == taken.total()
    for name in admission.evict:
        one = held[name]
        assert one.idle_at is not None
        assert not one.shared or (one.ready_at is not None and one.ready_at <= NOW - 1.0)
    for name in admission.retire:
        ready_at = held[name].ready_at
        assert ready_at is not None
        assert ready_at <= NOW - 1.0, "it has not served for long enough"
    for action, count in taken.items():
        assert count <= inventory.spare.get(action, count), "below the minimum"
    for action, count in admission.create.items():
        assert count <= wish_of[action].count
    created = sum(admission.create.values())
    created_mib = sum(wish_of[a].memory_mib * n for a, n in admission.create.items())
    gone = inventory.ending.containers + inventory.draining.containers
    gone_mib = inventory.ending.memory_mib + inventory.draining.memory_mib
    if created:
        assert created <= inventory.limits.containers - len(held) - gone
        held_mib = sum(one.memory_mib for one in inventory.held)
        assert created_mib <= inventory.limits.memory_mib - held_mib - gone_mib
    if taken and len(wishes) == 1:
        assert reach(inventory, wishes[0]) >= 1, "in vain"


@settings(max_examples=200, deadline=None)
@given(inventories, wish_lists.filter(bool))
def test_reach_is_what_the_admission_comes_to(inventory: Inventory, wishes: list[Wish]) -> None:
    """When residence has passed and what ends has ended, one wish alone gets what `reach` says."""
    wish, later = wishes[0], replace(inventory, now=NOW + 10.0)
    promised = reach(inventory, wish)
    ready = [
        replace(one, ready_at=NOW if one.ready_at is None else one.ready_at)
        for one in inventory.held
    ]
    got = 0
    for _ in range(20):
        later = replace(
            later, held=ready, ending=Room(0, 0), draining=Room(0, 0), now=later.now + 10
        )
        admission = admit(later, [replace(wish, count=wish.count - got)])
        gone = {*admission.evict, *admission.retire}
        count = admission.create.get(wish.action, 0)
        if not gone and not count:
            break
        got += count
        new = [
            Held(f"{wish.action}-{later.now}-{i}", wish.action, wish.memory_mib, later.now)
            for i in range(count)
        ]
        spare = {
            a: n - sum(one.id in gone and one.action == a for one in ready)
            for a, n in later.spare.items()
        }
        ready = [one for one in ready if one.id not in gone] + new
        later = replace(later, spare=spare)
    assert got == promised


@dataclass
class Hot:
    """A cluster whose containers are always busy; an action wants so many of them."""

    room: int
    wants: dict[str, int]
    minimums: dict[str, int] = field(default_factory=dict)
    now: float = NOW
    held: list[Held] = field(default_factory=list)
    admitted_at: dict[str, float] = field(default_factory=dict)
    created: int = 0

    def turn(self) -> set[str]:
        """One admission, carried out at once; returns the actions that lost a container."""
        self.now += 0.25
        has = Counter(one.action for one in self.held)
        spare = {name: has[name] - low for name, low in self.minimums.items()}
        limits = Room(self.room, 256 * self.room)
        inventory = Inventory(limits, self.held, spare=spare, now=self.now, residence_s=1.0)
        wishes = []
        for name, want in self.wants.items():
            wish = Wish(name, want - has[name], 256, self.admitted_at.get(name, 0.0))
            if wish.count > 0:
                wishes.append(replace(wish, count=reach(inventory, wish)))
        admission = admit(inventory, wishes)
        assert not admission.evict
        lost = {one.action for one in self.held if one.id in admission.retire}
        self.held = [one for one in self.held if one.id not in admission.retire]
        for name, count in admission.create.items():
            for _ in range(count):
                self.created += 1
                self.held.append(Held(f"{self.created}", name, 256, self.now, shared=True))
            self.admitted_at[name] = self.now
        assert len(self.held) <= self.room
        return lost


@settings(max_examples=60, deadline=None)
@given(
    room=st.integers(1, 8),
    wants=st.dictionaries(actions, st.integers(1, 12), min_size=1),
    first=actions,
    minimum=st.integers(0, 2),
)
def test_hot_actions_come_to_their_parts_and_rest(
    room: int, wants: dict[str, int], first: str, minimum: int
) -> None:
    """Whoever came first and took all: in the end nobody has two more than one who wants more."""
    wants[first] = 12
    room = max(room, len(wants) + minimum)  # or they take turns
    hot = Hot(room, {first: 12}, {first: minimum} if minimum else {})
    hot.turn()
    hot.wants = wants
    for _ in range(80):
        hot.turn()
    has = Counter(one.action for one in hot.held)
    assert sum(has.values()) == min(room, sum(wants.values()))
    for name, want in wants.items():
        if has[name] < want:
            low = hot.minimums.get(first, 0)
            assert all(n <= has[name] + 1 or (a == first and n <= low) for a, n in has.items())
    before = hot.created
    for _ in range(40):
        assert not hot.turn(), "something moves although all have their parts"
    assert hot.created == before


@pytest.mark.parametrize(("room", "count"), [(1, 2), (1, 3), (2, 5), (3, 4)])
def test_more_hot_actions_than_containers_take_turns(room: int, count: int) -> None:
    hot = Hot(room, dict.fromkeys([f"a{i}" for i in range(count)], 9))
    served: Counter[str] = Counter()
    round_turns = 5 * count  # residence is four turns; and one to change
    for _ in range(10):
        during: set[str] = set()
        for _ in range(round_turns):
            hot.turn()
            during.update(one.action for one in hot.held)
            served.update(one.action for one in hot.held)
        assert during == set(hot.wants), "somebody starves"
    assert max(served.values()) <= 2 * min(served.values())
    assert hot.created <= room * 10 * round_turns / 4 + room, "they only start"
