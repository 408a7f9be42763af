"""The life of an activation: every state and event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from slotway.activations import state
from slotway.activations.state import IllegalTransitionError, Policy, Standing, State

NOW = 1_000_000
TOKEN = 7
POLICY = Policy(attempts_max=3, back_off_ms=100, back_off_max_ms=250, age_max_ms=10_000)
QUEUED = state.submitted(NOW, POLICY)
CLAIMED = state.claimed(QUEUED, TOKEN, 500, NOW)
DONE = state.finished(CLAIMED, TOKEN)
DEAD = replace(QUEUED, state=State.DEAD, deadline_ms=None, reason="why", attempts=3)
EVENTS: dict[str, Callable[[Standing], Standing]] = {
    "claim": lambda old: state.claimed(old, TOKEN, 500, NOW),
    "finish": lambda old: state.finished(old, TOKEN),
    "finish late": lambda old: state.finished(old, TOKEN + 1),
    "fail": lambda old: state.failed(old, TOKEN, "why", NOW, POLICY),
    "fail late": lambda old: state.failed(old, TOKEN + 1, "why", NOW, POLICY),
    "lapse early": lambda old: state.lapsed(old, NOW, POLICY),
    "lapse": lambda old: state.lapsed(old, NOW + 10_000, POLICY),
    "redrive": lambda old: state.redriven(old, NOW, POLICY),
}
LEGAL = {
    (State.QUEUED, "claim"): State.CLAIMED,
    (State.QUEUED, "lapse"): State.DEAD,
    (State.CLAIMED, "finish"): State.DONE,
    (State.CLAIMED, "fail"): State.QUEUED,
    (State.CLAIMED, "lapse"): State.DEAD,  # at that time it is too old
    (State.DEAD, "redrive"): State.QUEUED,
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("old", [QUEUED, CLAIMED, DONE, DEAD], ids=lambda old: old.state.name)
def test_every_state_and_event(old: Standing, event: str) -> None:
    expected = LEGAL.get((old.state, event))
    if expected is None:
        with pytest.raises(IllegalTransitionError):
            EVENTS[event](old)
        return
    new = EVENTS[event](old)
    assert new.state is expected
    assert (new.token is not None) == (new.state is State.CLAIMED)
    assert (new.deadline_ms is not None) == (new.state in (State.QUEUED, State.CLAIMED))


def test_the_attempt_counts_when_it_begins_and_waits_double_up_to_a_bound() -> None:
    policy = replace(POLICY, attempts_max=6)
    now, waits, one = NOW, [], QUEUED
    for attempt in range(1, 6):
        one = state.claimed(one, attempt, 500, now)
        assert one.attempts == attempt
        one = state.failed(one, attempt, "why", now, policy)
        waits.append(one.due_at_ms - now)
        with pytest.raises(IllegalTransitionError):
            state.claimed(one, 1, 500, one.due_at_ms - 1)
        now = one.due_at_ms
    assert waits == [100, 200, 250, 250, 250]


def test_after_the_last_attempt_it_is_dead_with_the_reason() -> None:
    one = replace(CLAIMED, attempts=3)
    dead = state.failed(one, TOKEN, "the container was lost", NOW, POLICY)
    assert dead.state is State.DEAD
    assert dead.reason == "the container was lost (attempt 3 of 3)"


def test_the_lease_ends_an_attempt_and_the_age_ends_it_all() -> None:
    again = state.lapsed(CLAIMED, NOW + 500, POLICY)
    assert (again.state, again.deadline_ms) == (State.QUEUED, QUEUED.expires_at_ms)
    with pytest.raises(IllegalTransitionError):
        state.claimed(QUEUED, TOKEN, 500, QUEUED.expires_at_ms)
    old = state.failed(CLAIMED, TOKEN, "why", QUEUED.expires_at_ms - 100, POLICY)
    assert (old.state, old.reason) == (State.DEAD, "why (too old to be tried again)")
    assert "why" in state.lapsed(replace(QUEUED, reason="why"), NOW + 10_000, POLICY).reason


def test_a_redriven_one_begins_anew() -> None:
    assert state.redriven(DEAD, NOW, POLICY) == QUEUED
