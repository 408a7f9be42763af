"""The life of an activation in the store, as pure code: no clock, no chance, no database.

    submit ──▶ QUEUED ──claim──▶ CLAIMED ──finish──▶ DONE
                 ▲ │                │
                 │ └─lapse (age)─┐  │ fail, lapse (lease): to QUEUED with back-off while
                 │               ▼  ▼ attempts and age permit, else
                 └──redrive──── DEAD

Who claims gets a token, and a lease that ends by itself. An attempt counts when it is claimed.
Only the token of the newest claim finishes or fails an activation: whoever comes late finds
another token or another state, and changes nothing. Hence code may run more than once, and exactly
one outcome is recorded.

Clocks decide only when something is tried again, never whether an outcome counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum


class State(IntEnum):
    """Where an activation is in its life; the numbers are stored."""

    QUEUED = 0
    CLAIMED = 1
    DONE = 2
    DEAD = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """How often and how long an activation is tried. Times in milliseconds."""

    attempts_max: int = 5
    back_off_ms: int = 1_000
    """Before the second attempt; it doubles with each further one, up to `back_off_max_ms`."""
    back_off_max_ms: int = 300_000
    age_max_ms: int = 7 * 86_400_000
    """From the submission, or the redrive, on: what was not claimed by then never is."""
    key_kept_ms: int = 86_400_000
    """How long an idempotency key names its activation at least."""

    def delay_ms(self, attempts: int) -> int:
        """How long an activation waits after so many failed attempts (≥ 1)."""
        doublings = min(attempts - 1, 40)
        return min(self.back_off_ms << doublings, self.back_off_max_ms)


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides over an activation. Times in milliseconds since 1970."""

    state: State
    attempts: int
    """Claims so far; since the last redrive, if there was one."""
    token: int | None
    """Of the newest claim, while it counts."""
    due_at_ms: int
    """Not to be claimed before."""
    expires_at_ms: int
    """Not to be claimed from then on."""
    deadline_ms: int | None
    """When it lapses: the end of the lease or of the age; None: never."""
    reason: str = ""
    """Why the last attempt failed, or why it is dead; for people."""


class IllegalTransitionError(Exception):
    """The activation is not in a state for that; nothing has changed."""


def submitted(now_ms: int, policy: Policy) -> Standing:
    """A new activation."""
    expires_at_ms = now_ms + policy.age_max_ms
    return Standing(State.QUEUED, 0, None, now_ms, expires_at_ms, expires_at_ms)


def claimed(old: Standing, token: int, lease_ms: int, now_ms: int) -> Standing:
    """An attempt begins; it is over with the lease at the latest."""
    if old.state is not State.QUEUED or not old.due_at_ms <= now_ms < old.expires_at_ms:
        raise IllegalTransitionError(f"claim: {old}")
    lease = now_ms + lease_ms
    return replace(
        old, state=State.CLAIMED, attempts=old.attempts + 1, token=token, deadline_ms=lease
    )


def finished(old: Standing, token: int) -> Standing:
    """The attempt has come to an outcome, which is recorded with this."""
    _check_token(old, token)
    return replace(old, state=State.DONE, token=None, deadline_ms=None, reason="")


def failed(old: Standing, token: int, reason: str, now_ms: int, policy: Policy) -> Standing:
    """The attempt came to no outcome: it is tried again, or given up."""
    _check_token(old, token)
    return _again(old, reason, now_ms, policy)


def lapsed(old: Standing, now_ms: int, policy: Policy) -> Standing:
    """The lease or the age has come to its end."""
    if old.deadline_ms is None or old.deadline_ms > now_ms:
        raise IllegalTransitionError(f"lapse: {old}")
    if old.state is State.QUEUED:
        return _given_up(old, f"not begun by its maximum age{_last(old)}")
    return _again(old, "whoever ran it did not answer within the lease", now_ms, policy)


def redriven(old: Standing, now_ms: int, policy: Policy) -> Standing:
    """A dead letter is tried anew, as if it were submitted now."""
    if old.state is not State.DEAD:
        raise IllegalTransitionError(f"redrive: {old}")
    return submitted(now_ms, policy)


def _check_token(old: Standing, token: int) -> None:
    if old.state is not State.CLAIMED or old.token != token:
        raise IllegalTransitionError(f"token {token}: {old}")


def _again(old: Standing, reason: str, now_ms: int, policy: Policy) -> Standing:
    due_at_ms = now_ms + policy.delay_ms(old.attempts)
    if old.attempts >= policy.attempts_max:
        return _given_up(old, f"{reason} (attempt {old.attempts} of {policy.attempts_max})")
    if due_at_ms >= old.expires_at_ms:
        return _given_up(old, f"{reason} (too old to be tried again)")
    return replace(
        old,
        state=State.QUEUED,
        token=None,
        due_at_ms=due_at_ms,
        deadline_ms=old.expires_at_ms,
        reason=reason,
    )


def _given_up(old: Standing, reason: str) -> Standing:
    return replace(old, state=State.DEAD, token=None, deadline_ms=None, reason=reason)


def _last(old: Standing) -> str:
    return f"; before: {old.reason}" if old.reason else ""
