"""How an action backs off, and what is remembered of its containers' ends."""

from __future__ import annotations

from itertools import pairwise

from slotway.drivers.base import DriverError
from slotway.manager.action import CRASH_PAUSE_S_MAX, FAILURES_TOLD, SHORT_S, TROUBLE_S, Action
from slotway.manager.endings import ACTIONS_MAX, ENDINGS_MAX, Ending, Endings
from slotway.v1 import ledger_pb2

ERROR = DriverError("it ended by itself: exit code 1")


def new() -> Action:
    return Action(ledger_pb2.ActionRecord(name="a/b", memory_mib=256), 1)


def test_the_first_crash_is_replaced_at_once_and_each_further_one_later() -> None:
    action, now = new(), 1000.0
    pauses = []
    for _ in range(9):
        action.crashed(ERROR, 0.01, now)
        until = action.pause_until(now)
        pauses.append(0.0 if until is None else until - now)
        now = (until or now) + 0.05
    assert pauses[0] == 0.0
    for before, pause in pairwise(pauses[1:6]):
        assert 1.3 <= pause / before <= 3.0
    assert 0.8 * CRASH_PAUSE_S_MAX <= max(pauses) <= 1.2 * CRASH_PAUSE_S_MAX


def test_crashes_of_a_crowd_are_few_and_those_of_old_containers_none() -> None:
    action, now = new(), 1000.0
    for _ in range(100):
        action.crashed(ERROR, 0.01, now)
    assert action.crashes == 2
    action = new()
    for _ in range(100):
        action.crashed(ERROR, SHORT_S, now)
        assert action.pause_until(now) is None
        now += 0.01


def test_a_container_that_served_for_a_while_ends_the_row() -> None:
    action, now = new(), 1000.0
    for _ in range(5):
        action.crashed(ERROR, 0.01, now)
        now = (action.pause_until(now) or now) + 0.05
    assert action.crashes == 5
    now += SHORT_S  # whatever runs now has not crashed
    action.crashed(ERROR, 0.01, now)
    assert (action.crashes, action.pause_until(now)) == (1, None)


def test_an_init_that_succeeds_does_not_end_the_pause_of_crashes() -> None:
    action, now = new(), 1000.0
    action.crashed(ERROR, 0.01, now)
    action.crashed(ERROR, 0.01, now)
    action.served()
    assert action.pause_until(now) is not None


def test_waiters_are_told_of_crashes_after_some_unless_a_container_serves() -> None:
    action, now = new(), 1000.0
    for crashes in range(1, FAILURES_TOLD + 1):
        action.crashed(ERROR, 0.01, now)
        refusal = action.refusal(now)
        assert (refusal is not None) == (crashes >= FAILURES_TOLD)
        assert action.refusal(now, serving=True) is None
        pause_until = action.pause_until(now)
        now = (pause_until or now) + (0.05 if crashes < FAILURES_TOLD else 0.0)
    assert refusal is not None
    assert refusal.reason == "CREATE_FAILED"
    assert "crash soon after they come to serve: it ended by itself: exit code 1" in str(refusal)
    assert action.refusal(now) is None, "the pause is over"


def test_trouble_is_told_until_it_is_over() -> None:
    action, now = new(), 1000.0
    assert action.trouble(now) is None
    for _ in range(2):
        action.failed(DriverError("no space left on device"), now)
        now = action.not_before
    action.failed(DriverError("still none"), now)
    trouble = action.trouble(now + 0.25)
    assert trouble is not None
    assert (trouble.failures, trouble.reason) == (3, "still none")
    assert trouble.age.ToMilliseconds() == 250
    assert trouble.pause.ToMilliseconds() > 1000
    action.served()
    assert action.trouble(now + 0.25) is None
    for _ in range(2):
        action.crashed(ERROR, 0.01, now)
    crashing = action.trouble(now + 1.0)
    assert crashing is not None
    assert (crashing.failures, crashing.reason) == (2, str(ERROR))
    assert not crashing.HasField("pause"), "it is over"
    assert action.trouble(now + TROUBLE_S + 1) is None


def test_the_newest_ends_of_the_newest_actions_are_remembered() -> None:
    endings = Endings()
    for number in range(ACTIONS_MAX + 5):
        name = f"a/{number:04}"
        for count in range(ENDINGS_MAX + 3):
            endings.note(Ending(f"{name}-{count}", name, 1, "why", True, None, 0))
    kept = list(endings)
    assert len(kept) == ACTIONS_MAX * ENDINGS_MAX
    assert kept[0].container == f"a/0005-{ENDINGS_MAX + 2}"
    assert kept[ENDINGS_MAX - 1].container == "a/0005-3"
