"""Shares the cluster's room for containers out among the actions that want more."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Room:
    """What the limits leave. Containers that end still take theirs."""

    containers: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Wish:
    """An action wants `count` more containers of `memory_mib` each."""

    action: str
    count: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Idle:
    """A container in which nobody holds a share."""

    id: str
    action: str
    memory_mib: int
    idle_since: float


@dataclass(slots=True)
class Admission:
    """What may be created now, and what is to go so that more can be created later."""

    create: dict[str, int] = field(default_factory=dict)
    evict: list[str] = field(default_factory=list)


def admit(room: Room, ending: Room, wishes: Iterable[Wish], idle: Iterable[Idle]) -> Admission:
    """Grants wishes one container at a time, in turns: a large wish does not starve a small one.

    `ending` is what containers that end already will give back: no more is evicted than is needed
    beyond that. Evicted are the longest idle ones, never of the action that wishes.
    """
    result = Admission()
    containers, memory = room.containers, room.memory_mib
    later, memory_later = ending.containers, ending.memory_mib
    candidates = sorted(idle, key=lambda c: (c.idle_since, c.id))
    queue = deque((wish, wish.count) for wish in sorted(wishes, key=lambda w: w.action))
    while queue:
        wish, left = queue.popleft()
        if left <= 0:
            continue
        if containers >= 1 and memory >= wish.memory_mib:
            containers -= 1
            memory -= wish.memory_mib
            result.create[wish.action] = result.create.get(wish.action, 0) + 1
            queue.append((wish, left - 1))
            continue
        # No room now: set aside what ends already, then evict until it would fit.
        while containers + later < 1 or memory + memory_later < wish.memory_mib:
            victim = next((c for c in candidates if c.action != wish.action), None)
            if victim is None:
                break
            candidates.remove(victim)
            result.evict.append(victim.id)
            later += 1
            memory_later += victim.memory_mib
        else:
            later -= 1
            memory_later -= wish.memory_mib
            queue.append((wish, left - 1))
    return result
