"""What happens when: a pure function of the seed, so that `SEED=n` replays it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

BEGIN_S = 5.0
"""Before this nothing happens but load."""
END_SHARE = 0.04
"""Of the whole time, in the end, the same: what was begun can finish."""


class Kind(StrEnum):
    """What may happen."""

    UPDATE = "update"
    """An action gets new code."""
    REPLACE = "delete"
    """An action is deleted, and created anew a moment later."""
    CRASH = "crash"
    """A container ends itself while requests run in it."""
    MEMORY = "out of memory"
    """A container takes more memory than it has. (The process driver has no such limit: SIGKILL
    from outside is what the kernel would do.)"""
    ENGINE = "engine restart"
    """All containers end, and for a while there can be no others."""
    FULL = "full cluster"
    """A burst on more actions than the cluster has room for."""
    MOVE = "demand moves"
    """All of an action's traffic goes to one Router."""
    ROUTER = "router restart"
    """A Router is killed, and started again under its name."""
    MANAGER = "leader killed"
    """The leading Manager is killed, and started again: as a standby."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happens; `seed` is for what it has to choose."""

    at_s: float
    kind: Kind
    seed: int


def schedule(seed: int, seconds: float, each: int) -> list[Event]:
    """`each` events of every kind, in the order of their times. Those of a kind are spread evenly,
    each somewhere within its own part of the time."""
    rng = random.Random(seed)
    part_s = (seconds * (1 - END_SHARE) - BEGIN_S) / each
    events = [
        Event(BEGIN_S + (number + rng.random()) * part_s, kind, rng.getrandbits(32))
        for kind in Kind
        for number in range(each)
    ]
    return sorted(events, key=lambda event: event.at_s)
