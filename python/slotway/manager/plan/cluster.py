"""Shares the cluster's room for containers out among the actions that want more.

One container at a time, and the poorest action first: the one with the least part of the cluster,
be it of its containers or of its memory; of several equals the one that was given a container the
longest ago. So a large wish does not starve a small one.

Where there is no room, containers of other actions make way, none below its action's minimum:
first those of which nobody holds a share, then those whose shares idle, each time the least
recently used; then, if the wishing action has less than its max-min fair part of the cluster, those
in use of the richest action. Actions that have nothing at all take turns with those that have one.
A container serves for some time before it is taken from Routers that hold shares of it, so that hot
actions do not spend their time starting. Nothing makes way in vain: either the wish fits then, or
nothing is touched. Room that was made for one wish is not given to a later one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

NOW, SOON, LATE = 0, 1, 2
"""When room is there: at once; when what ends already has ended; when what drains has, too."""


@dataclass(frozen=True, slots=True)
class Room:
    """So many containers, and so much memory for them all."""

    containers: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Wish:
    """An action wants `count` more containers of `memory_mib` each."""

    action: str
    count: int
    memory_mib: int
    since: float = 0.0
    """When it was given a container last."""


@dataclass(frozen=True, slots=True)
class Held:
    """A container that comes or serves."""

    id: str
    action: str
    memory_mib: int
    ready_at: float | None = None
    """Since when it serves; None: not yet."""
    idle_at: float | None = None
    """Since when nothing has run in it, as far as is known; None: something runs."""
    shared: bool = False
    """Somebody holds a share of it."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the cluster has at the time `now`."""

    limits: Room
    held: Sequence[Held]
    ending: Room = Room(0, 0)
    """Taken by containers that end in a moment."""
    draining: Room = Room(0, 0)
    """Taken by containers that end when their requests do."""
    spare: Mapping[str, float] = field(default_factory=dict)
    """Per action with a minimum: how many containers it has ready above that."""
    now: float = 0.0
    residence_s: float = 0.0
    """A container is not taken from Routers that hold shares of it before it served for so long."""


@dataclass(slots=True)
class Admission:
    """What may be created now, and what is to go so that more can be created later."""

    create: dict[str, int] = field(default_factory=dict)
    evict: list[str] = field(default_factory=list)
    """Idle ones."""
    retire: list[str] = field(default_factory=list)
    """Ones in use, of actions that have more than their part of the cluster."""


def admit(inventory: Inventory, wishes: Iterable[Wish]) -> Admission:
    """Grants wishes as the module says. No more is evicted than is needed beyond what ends already
    or drains."""
    sharing = _Sharing(inventory)
    sharing.run(wishes)
    return sharing.out


def reach(inventory: Inventory, wish: Wish) -> int:
    """How many containers of the wish `admit` grants sooner or later, if nothing else changes:
    residence passes, and what drains ends."""
    sharing = _Sharing(replace(inventory, residence_s=-math.inf))
    return sharing.run([wish])


class _Sharing:
    """The working state of one admission."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.out = Admission()
        self.containers: Counter[str] = Counter()
        self.memory_mib: Counter[str] = Counter()
        for one in inventory.held:
            self.containers[one.action] += 1
            self.memory_mib[one.action] += one.memory_mib
        late = _Left(
            inventory.limits.containers - self.containers.total(),
            inventory.limits.memory_mib - self.memory_mib.total(),
        )
        soon = late.less(inventory.draining)
        self.left = [soon.less(inventory.ending), soon, late]
        """By when it is there; each counts what is there earlier."""
        self.spare = dict(inventory.spare)
        self.aged_at = inventory.now - inventory.residence_s

    @cached_property
    def idle(self) -> list[Held]:
        """In the order in which they make way."""
        there = (one for one in self.inventory.held if self._idles(one))
        return sorted(there, key=lambda one: (one.shared, one.idle_at, one.id))

    @cached_property
    def busy(self) -> dict[str, list[Held]]:
        """Per action: containers in use that served for long enough, the longest ready first."""
        rows: dict[str, list[Held]] = {}
        for one in sorted(self.inventory.held, key=lambda one: (_serves_since(one), one.id)):
            if not self._idles(one) and _serves_since(one) <= self.aged_at:
                rows.setdefault(one.action, []).append(one)
        return rows

    def _idles(self, one: Held) -> bool:
        aged = not one.shared or _serves_since(one) <= self.aged_at
        return one.idle_at is not None and aged

    def run(self, wishes: Iterable[Wish]) -> int:
        """Returns how many containers were granted, or will be when room has been made."""
        granted = 0
        waiting = [wish for wish in wishes if wish.count > 0]
        while waiting:
            wish = min(waiting, key=lambda w: (self._part(w.action), w.since, w.action))
            waiting.remove(wish)
            if all(left.holds(wish) for left in self.left):
                self._grant(wish, NOW)
                self.out.create[wish.action] = self.out.create.get(wish.action, 0) + 1
            elif not self._make_room(wish):
                continue
            granted += 1
            if wish.count > 1:
                waiting.append(replace(wish, count=wish.count - 1))
        return granted

    def _part(self, action: str, containers: int = 0, memory_mib: int = 0) -> float:
        """The action's part of the cluster, with so much more."""
        limits = self.inventory.limits
        return max(
            (self.containers[action] + containers) / max(1, limits.containers),
            (self.memory_mib[action] + memory_mib) / max(1, limits.memory_mib),
        )

    def _grant(self, wish: Wish, when: int) -> None:
        for left in self.left[when:]:
            left.take(wish)
        self.containers[wish.action] += 1
        self.memory_mib[wish.action] += wish.memory_mib

    def _make_room(self, wish: Wish) -> bool:
        """Sets room aside that is there soon or late, if others make way where need be."""
        making = _Making(wish, [left.copy() for left in self.left])
        for one in self.idle:
            if making.fits(SOON):
                break
            if one.action != wish.action and self._spares(making, one):
                making.take(one, SOON)
        if making.fits(SOON):
            self._settle(making, SOON)
            return True
        if self.left[LATE].holds(wish):
            self._grant(wish, LATE)
            return True
        while not making.fits(LATE):
            giver = self._giver(making)
            if giver is None:
                return False
            making.take(giver, LATE)
        self._settle(making, LATE)
        return True

    def _giver(self, making: _Making) -> Held | None:
        """The next of the richest action's containers in use that may be taken.

        The giver must not have less than the taker afterwards, or it would be given back at once;
        unless the taker has none at all: then they take turns.
        """
        wish, givers = making.wish, []
        part = self._part(wish.action, 1, wish.memory_mib)
        turns = not self.containers[wish.action]
        for action, rows in self.busy.items():
            one = next((one for one in rows if one.id not in making.taken), None)
            if action == wish.action or one is None or not self._spares(making, one):
                continue
            left_mib = -making.memory_mib[action] - one.memory_mib
            left = self._part(action, -making.containers[action] - 1, left_mib)
            if turns or left >= part:
                givers.append((-left, _serves_since(one), one.id, one))
        return min(givers)[-1] if givers else None

    def _spares(self, making: _Making, one: Held) -> bool:
        return self.spare.get(one.action, math.inf) - making.containers[one.action] >= 1

    def _settle(self, making: _Making, when: int) -> None:
        for one, ends in making.taken.values():
            (self.out.evict if ends == SOON else self.out.retire).append(one.id)
            (self.idle if ends == SOON else self.busy[one.action]).remove(one)
            for left in self.left[ends:]:
                left.add(one)
            self.containers[one.action] -= 1
            self.memory_mib[one.action] -= one.memory_mib
            if one.action in self.spare:
                self.spare[one.action] -= 1
        self._grant(making.wish, when)


class _Making:
    """Room being made for one container of a wish; nothing is touched before it is enough."""

    def __init__(self, wish: Wish, left: list[_Left]) -> None:
        self.wish, self.left = wish, left
        self.taken: dict[str, tuple[Held, int]] = {}
        """Containers that are to make way, and whether they end SOON or LATE."""
        self.containers: Counter[str] = Counter()
        self.memory_mib: Counter[str] = Counter()

    def fits(self, when: int) -> bool:
        return all(left.holds(self.wish) for left in self.left[when:])

    def take(self, one: Held, ends: int) -> None:
        self.taken[one.id] = (one, ends)
        self.containers[one.action] += 1
        self.memory_mib[one.action] += one.memory_mib
        for left in self.left[ends:]:
            left.add(one)


@dataclass(slots=True)
class _Left:
    """Room that is not spoken for; below zero where it is spoken for before it is there."""

    containers: int
    memory_mib: int

    def less(self, room: Room) -> _Left:
        return _Left(self.containers - room.containers, self.memory_mib - room.memory_mib)

    def copy(self) -> _Left:
        return _Left(self.containers, self.memory_mib)

    def holds(self, wish: Wish) -> bool:
        return self.containers >= 1 and self.memory_mib >= wish.memory_mib

    def take(self, wish: Wish) -> None:
        self.containers -= 1
        self.memory_mib -= wish.memory_mib

    def add(self, one: Held) -> None:
        self.containers += 1
        self.memory_mib += one.memory_mib


def _serves_since(one: Held) -> float:
    return math.inf if one.ready_at is None else one.ready_at
