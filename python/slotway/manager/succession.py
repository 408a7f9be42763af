"""When a standby takes the leader key: a pure machine, of events that come with their time.

    CALM ──broken stream, refused reconnect──────────────────────────────▶ TAKING
    CALM ──silence──▶ ASKING (the Routers) ──none hears it──▶ PROBING ──▶ TAKING
    CALM ──a commit that is stuck, or a stranger that refuses──▶ PROBING (etcd) ──▶ TAKING
    any  ──the key is absent, or one's own──────────────────────────────▶ TAKING
    any  ──another key, or a sign of life──▶ CALM

Being wrong costs one handover, never safety: every commit compares the key's revision. So that
wrong ones do not follow each other, suspicion leaves a young key alone, for longer and longer while
its leaders do not turn. Time in which the standby itself did not run is no silence of the leader's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

SILENCE_S = 0.35
"""Without a beat for so long, and so many periods, a leader is suspected."""
SILENCE_PERIODS = 3.5
ALIVE_S = 0.25
"""A Router that heard the leader so lately hears it still."""
ALIVE_PERIODS = 2.5
ANSWER_S = 0.1
"""How long Routers are waited for."""
ALONE_S = 1.0
"""How long a silence has to last if there is no Router to be asked."""
PROBED_S = 2.0
"""A probe that has not ended after this did not work."""
STUCK_S = 3.5
"""A commit that takes so long, while one's own probe works, is the leader's own trouble."""
TICK_S = 0.05
TICK_S_MAX = 2 * TICK_S
"""A tick that comes later than this was late by the standby's own fault."""
YOUNG_S = 2.0
YOUNG_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Key:
    """The leader key as it is: the revision of its put, and who is on it."""

    revision: int
    incarnation: str
    address: str


# Events.


@dataclass(frozen=True, slots=True)
class Seen:
    """The key is so now; None: absent."""

    key: Key | None


@dataclass(frozen=True, slots=True)
class Beat:
    """The leader of this revision turns; its commit has been under way for so long (0: none is)."""

    revision: int
    turn: int
    commit_s: float


@dataclass(frozen=True, slots=True)
class Broken:
    """The stream to the leader broke, or could not be opened."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nobody listens at the leader's address."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """So many Routers were asked."""

    routers: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A Router heard of the leader so long ago."""

    age_s: float


@dataclass(frozen=True, slots=True)
class Probed:
    """Whether one's own transaction worked."""

    worked: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The key was not taken: what is on it is to be seen anew."""


@dataclass(frozen=True, slots=True)
class Turned:
    """One's own term came to serve."""


Event: TypeAlias = (
    Seen | Beat | Broken | Refused | Tick | Asked | Answered | Probed | Failed | Turned
)

# What is to be done.


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the Routers how long ago they heard of the leader, then tell `Asked`."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Try a transaction, then tell `Probed`."""


@dataclass(frozen=True, slots=True)
class Take:
    """Put the key, comparing this revision (0: absent)."""

    revision: int


@dataclass(frozen=True, slots=True)
class Lead:
    """The key is one's own: lead its revision."""

    revision: int


Command: TypeAlias = Ask | Probe | Take | Lead


class Phase(StrEnum):
    """Where a standby is on its way to the key."""

    CALM = "calm"
    ASKING = "asking"
    PROBING = "probing"
    TAKING = "taking"


class Succession:
    """One incarnation's view of who leads. Times are seconds of the caller's monotonic clock."""

    def __init__(self, incarnation: str, period_s: float) -> None:
        self.phase = Phase.CALM
        self.key: Key | None = None
        self.why = ""
        """What a takeover was decided for, for people."""
        self.led = 0
        """The newest revision that this incarnation has led: a revision is led once."""
        self._incarnation = incarnation
        self._silence_s = max(SILENCE_S, SILENCE_PERIODS * period_s)
        self._alive_s = max(ALIVE_S, ALIVE_PERIODS * period_s)
        self._since = 0.0
        self._ticked_at = 0.0
        self._young_s = YOUNG_S
        self._turn = 0
        self._turned = True
        """Whether the leader of this key was seen to turn."""
        self._broken = False
        self._refused = 0
        self._silent_s = 0.0
        self._entered_at = 0.0
        self._to_answer = 0

    def handle(self, event: Event, now: float) -> Command | None:
        """Takes an event; returns what is to be done because of it."""
        match event:
            case Seen(key):
                return self._seen(key, now)
            case Failed():
                if self.phase is Phase.TAKING:
                    self._calm(now)
            case Beat():
                return self._beat(event, now)
            case Broken():
                self._broken = True
            case Refused():
                return self._refuses(now)
            case Tick():
                return self._tick(now)
            case Asked(routers):
                self._to_answer = routers
            case Turned():
                self._turned = True
            case Answered(age_s):
                return self._answered(age_s, now)
            case Probed(worked):
                return self._probed(worked, now)
        return None

    def _seen(self, key: Key | None, now: float) -> Command | None:
        if key is not None and key == self.key and key.incarnation != self._incarnation:
            return None  # nothing new, also while it is being taken
        if key is not None and key != self.key:
            self._young_s = YOUNG_S if self._turned else min(YOUNG_S_MAX, 2 * self._young_s)
            self._since, self._turned, self._turn = now, False, 0
        self.key = key
        self._broken, self._refused = False, 0
        self._calm(now)
        if key is None:
            return self._take(0, "the leader key is absent", now)
        if key.incarnation == self._incarnation:
            self._enter(Phase.TAKING, now)
            self.why = "the leader key is this Manager's"
            return Lead(key.revision) if key.revision > self.led else Take(key.revision)
        return None

    def _beat(self, beat: Beat, now: float) -> Command | None:
        if self._foreign is None or beat.revision != self._foreign.revision:
            return None
        self._turned = self._turned or beat.turn > self._turn > 0
        self._turn = max(self._turn, beat.turn)
        self._broken, self._refused, self._silent_s = False, 0, 0.0
        if beat.commit_s < STUCK_S:
            if self.phase in (Phase.ASKING, Phase.PROBING):
                self._calm(now)
        elif self.phase is Phase.CALM and self._old(now):
            return self._probe("its commits are stuck", now)
        return None

    def _refuses(self, now: float) -> Command | None:
        if self._foreign is None or self.phase is Phase.TAKING:
            return None
        self._refused += 1
        if self._turn and self._broken:
            return self._take(self._foreign.revision, "its stream broke, and it refuses", now)
        if self._refused >= 2 and self._old(now) and self.phase is not Phase.PROBING:
            return self._probe("nobody listens at its address", now)
        return None

    def _tick(self, now: float) -> Command | None:
        passed_s = min(now - self._ticked_at, TICK_S_MAX)
        self._ticked_at = now
        self._silent_s += passed_s
        if self._foreign is None:
            return None
        if self.phase is Phase.PROBING and now - self._entered_at >= PROBED_S:
            self._calm(now)  # whoever probed gave up
        if self.phase is Phase.ASKING and now - self._entered_at >= ANSWER_S:
            if self._to_answer == 0 and self._silent_s < ALONE_S:
                return None
            return self._probe("it is silent", now)
        if self.phase is Phase.CALM and self._silent_s >= self._silence_s and self._old(now):
            self._enter(Phase.ASKING, now)
            self._to_answer = 0
            return Ask()
        return None

    def _answered(self, age_s: float, now: float) -> Command | None:
        if self.phase is not Phase.ASKING or self._to_answer == 0:
            return None
        if age_s < self._alive_s:
            self._calm(now)  # only the way between the two Managers is cut
            return None
        self._to_answer -= 1
        return self._probe("no Router hears it", now) if self._to_answer == 0 else None

    def _probed(self, worked: bool, now: float) -> Command | None:
        if self.phase is not Phase.PROBING or self._foreign is None:
            return None
        if worked:
            return self._take(self._foreign.revision, self.why, now)
        self._calm(now)
        return None

    @property
    def _foreign(self) -> Key | None:
        mine = self.key is not None and self.key.incarnation == self._incarnation
        return None if mine else self.key

    def _old(self, now: float) -> bool:
        return now - self._since >= self._young_s

    def _calm(self, now: float) -> None:
        self._silent_s = 0.0
        self._enter(Phase.CALM, now)

    def _probe(self, why: str, now: float) -> Probe:
        self.why = why
        self._enter(Phase.PROBING, now)
        return Probe()

    def _take(self, revision: int, why: str, now: float) -> Take:
        self.why = why
        self._enter(Phase.TAKING, now)
        return Take(revision)

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase, self._entered_at = phase, now
