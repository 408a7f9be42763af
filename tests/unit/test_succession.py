"""Every event in every phase of a standby, and the time that suspicion takes."""

from __future__ import annotations

import pytest

from slotway.manager.succession import (
    ALIVE_S,
    ALONE_S,
    ANSWER_S,
    SILENCE_S,
    STUCK_S,
    TICK_S,
    TICK_S_MAX,
    YOUNG_S,
    YOUNG_S_MAX,
    Answered,
    Ask,
    Asked,
    Beat,
    Broken,
    Command,
    Event,
    Failed,
    Key,
    Lead,
    Phase,
    Probe,
    Probed,
    Refused,
    Seen,
    Succession,
    Take,
    Tick,
    Turned,
)

LEADER = Key(5, "other", "h:1")
OWN = Key(7, "me", "h:2")
NEXT = Key(9, "third", "h:3")
CALM, ASKING, PROBING, TAKING = Phase.CALM, Phase.ASKING, Phase.PROBING, Phase.TAKING


class Walk:
    """A machine and its clock."""

    def __init__(self, period_s: float = 0.1) -> None:
        self.machine = Succession("me", period_s)
        self.now = 100.0
        self.turn = 0

    def tell(self, event: Event) -> Command | None:
        return self.machine.handle(event, self.now)

    def beat(self, commit_s: float = 0.0, revision: int = LEADER.revision) -> Command | None:
        self.turn += 1
        return self.tell(Beat(revision, self.turn, commit_s))

    def run(self, seconds: float, *, beating: bool = False) -> Command | None:
        """Ticks for so long; stops at the first command."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now += TICK_S
            if beating:
                assert self.beat() is None
            if (command := self.tell(Tick())) is not None:
                return command
        return None

    @classmethod
    def at(cls, phase: Phase) -> Walk:
        """A standby that has seen the leader turn, and is in this phase."""
        walk = cls()
        assert walk.tell(Seen(LEADER)) is None
        assert walk.run(YOUNG_S + 1, beating=True) is None
        if phase is CALM:
            return walk
        assert walk.run(1) == Ask()
        walk.tell(Asked(2))
        if phase is ASKING:
            return walk
        assert walk.tell(Answered(9)) is None
        assert walk.tell(Answered(9)) == Probe()
        if phase is PROBING:
            return walk
        assert walk.tell(Probed(True)) == Take(5)
        return walk


EVENTS: dict[str, Event] = {
    "absent": Seen(None),
    "own": Seen(OWN),
    "same": Seen(LEADER),
    "next": Seen(NEXT),
    "beat": Beat(5, 1000, 0.0),
    "foreign beat": Beat(4, 1000, 0.0),
    "stuck": Beat(5, 1000, STUCK_S),
    "broken": Broken(),
    "refused": Refused(),
    "tick": Tick(),
    "asked": Asked(1),
    "heard": Answered(0.1),
    "unheard": Answered(9),
    "works": Probed(True),
    "fails": Probed(False),
    "failed": Failed(),
    "turned": Turned(),
}
STAYS = (None, None)
TABLE: dict[str, dict[Phase, tuple[Command | None, Phase | None]]] = {
    "absent": dict.fromkeys(Phase, (Take(0), TAKING)),
    "own": dict.fromkeys(Phase, (Lead(7), TAKING)),
    "same": dict.fromkeys(Phase, STAYS),
    "next": dict.fromkeys(Phase, (None, CALM)),
    "beat": {CALM: STAYS, ASKING: (None, CALM), PROBING: (None, CALM), TAKING: STAYS},
    "foreign beat": dict.fromkeys(Phase, STAYS),
    "stuck": {CALM: (Probe(), PROBING), ASKING: STAYS, PROBING: STAYS, TAKING: STAYS},
    "broken": dict.fromkeys(Phase, STAYS),
    "refused": dict.fromkeys(Phase, STAYS),
    "tick": dict.fromkeys(Phase, STAYS),
    "asked": dict.fromkeys(Phase, STAYS),
    "heard": {CALM: STAYS, ASKING: (None, CALM), PROBING: STAYS, TAKING: STAYS},
    "unheard": dict.fromkeys(Phase, STAYS),
    "works": {CALM: STAYS, ASKING: STAYS, PROBING: (Take(5), TAKING), TAKING: STAYS},
    "fails": {CALM: STAYS, ASKING: STAYS, PROBING: (None, CALM), TAKING: STAYS},
    "failed": {CALM: STAYS, ASKING: STAYS, PROBING: STAYS, TAKING: (None, CALM)},
    "turned": dict.fromkeys(Phase, STAYS),
}


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("event", list(EVENTS))
def test_every_event_in_every_phase(event: str, phase: Phase) -> None:
    walk = Walk.at(phase)
    assert walk.machine.phase is phase
    command, then = TABLE[event][phase]
    assert walk.tell(EVENTS[event]) == command
    assert walk.machine.phase is (then or phase)


@pytest.mark.parametrize("phase", [CALM, ASKING, PROBING])
def test_a_broken_stream_and_a_refusal_take_at_once(phase: Phase) -> None:
    walk = Walk.at(phase)
    walk.tell(Broken())
    assert walk.tell(Refused()) == Take(5)


def test_a_leader_that_is_young_is_taken_from_at_once_if_it_was_seen_to_die() -> None:
    walk = Walk()
    walk.tell(Seen(LEADER))
    walk.beat()
    walk.tell(Broken())
    assert walk.tell(Refused()) == Take(5)
    walk.tell(Failed())
    walk.tell(Broken())
    assert walk.tell(Refused()) == Take(5), "it is tried again"


def test_a_stranger_that_refuses_is_left_alone_while_its_key_is_young() -> None:
    walk = Walk()
    walk.tell(Seen(LEADER))
    for _ in range(20):
        walk.tell(Broken())
        assert walk.tell(Refused()) is None
    walk.now += YOUNG_S
    assert walk.tell(Refused()) == Probe()
    assert walk.tell(Probed(True)) == Take(5)


def test_one_refusal_of_a_stranger_proves_nothing() -> None:
    walk = Walk()
    walk.tell(Seen(LEADER))
    walk.now += YOUNG_S
    assert walk.tell(Refused()) is None
    walk.beat()
    assert walk.tell(Refused()) is None, "it was seen alive in between"


def test_silence_takes_its_time() -> None:
    walk = Walk.at(CALM)
    began = walk.now
    assert walk.run(5) == Ask()
    assert SILENCE_S - 1e-6 <= walk.now - began <= SILENCE_S + 2 * TICK_S
    walk.tell(Asked(1))
    assert walk.run(5) == Probe(), "a Router that does not answer is not waited for"
    assert walk.now - began <= SILENCE_S + ANSWER_S + 3 * TICK_S
    assert walk.tell(Probed(True)) == Take(5)


def test_silence_is_counted_in_periods_where_those_are_long() -> None:
    walk = Walk(period_s=1.0)
    walk.tell(Seen(LEADER))
    assert walk.run(3.4) is None
    assert walk.run(0.2) == Ask()
    walk.tell(Asked(1))
    assert walk.tell(Answered(2.0)) is None
    assert walk.machine.phase is CALM, "two periods ago is lately"


def test_a_router_that_hears_the_leader_saves_it() -> None:
    walk = Walk.at(CALM)
    for _ in range(3):
        assert walk.run(5) == Ask()
        walk.tell(Asked(2))
        walk.tell(Answered(9))
        assert walk.tell(Answered(ALIVE_S - 0.01)) is None
        assert walk.machine.phase is CALM


def test_without_a_router_the_silence_has_to_be_longer() -> None:
    walk = Walk.at(CALM)
    began = walk.now
    assert walk.run(5) == Ask()
    walk.tell(Asked(0))
    assert walk.run(5) == Probe()
    assert ALONE_S - 1e-6 <= walk.now - began <= ALONE_S + 2 * TICK_S


def test_time_in_which_the_standby_was_stopped_is_no_silence() -> None:
    walk = Walk.at(CALM)
    for _ in range(3):
        walk.now += 60
        assert walk.tell(Tick()) is None
    assert 3 * TICK_S_MAX < SILENCE_S


def test_a_probe_that_fails_or_is_given_up_is_followed_by_another() -> None:
    walk = Walk.at(PROBING)
    walk.tell(Probed(False))
    assert walk.run(5) == Ask()
    walk = Walk.at(PROBING)
    assert walk.run(5) == Ask()


def test_a_leader_that_waits_for_etcd_is_not_dead_until_it_is_stuck() -> None:
    walk = Walk.at(CALM)
    for tenth in range(int(STUCK_S * 10)):
        walk.now += 0.1
        assert walk.beat(commit_s=tenth / 10) is None
        assert walk.tell(Tick()) is None
    assert walk.beat(commit_s=STUCK_S) == Probe()
    assert walk.beat(commit_s=STUCK_S + 0.1) is None
    assert walk.tell(Probed(True)) == Take(5)


def test_patience_doubles_while_no_leader_turns() -> None:
    walk = Walk()
    walk.tell(Seen(Key(1, "a", "h:1")))
    waited = []
    for revision in range(2, 9):
        began = walk.now
        assert walk.run(60) == Ask()
        waited.append(round(walk.now - began))
        walk.tell(Seen(Key(revision, "a", "h:1")))
    assert waited == [2, 4, 8, 16, 30, 30, 30]
    assert max(waited) == YOUNG_S_MAX
    walk.turn = 0
    for _ in range(2):
        walk.beat(revision=8)
    walk.tell(Seen(Key(9, "a", "h:1")))
    began = walk.now
    assert walk.run(60) == Ask()
    assert round(walk.now - began) == YOUNG_S


def test_ones_own_term_that_served_ends_the_doubling() -> None:
    for served, young_s in ((True, YOUNG_S), (False, 2 * YOUNG_S)):
        walk = Walk()
        walk.tell(Seen(OWN))
        if served:
            walk.tell(Turned())
        walk.tell(Seen(NEXT))
        began = walk.now
        assert walk.run(60) == Ask()
        assert round(walk.now - began) == young_s


def test_a_revision_is_led_once() -> None:
    walk = Walk()
    assert walk.tell(Seen(OWN)) == Lead(7)
    walk.machine.led = 7
    assert walk.tell(Seen(OWN)) == Take(7)
    assert walk.tell(Seen(Key(8, "me", "h:2"))) == Lead(8)
