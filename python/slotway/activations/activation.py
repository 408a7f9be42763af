"""What goes into the store and comes out of it. Times in milliseconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from slotway.activations.state import State


class Status(IntEnum):
    """How a run came out; the numbers are stored."""

    SUCCESS = 0
    APPLICATION_ERROR = 1
    DEVELOPER_ERROR = 2
    TIMEOUT = 3


@dataclass(frozen=True, slots=True)
class Submission:
    """One asynchronous invocation."""

    id: str
    """New, and greater than older ones' ids, as UUIDv7s are."""
    action: str
    """"namespace/name"."""
    payload: bytes
    """A JSON object."""
    key: str | None = None
    """The client's idempotency key: within the action, the same key is the same activation."""


@dataclass(frozen=True, slots=True)
class Want:
    """Slots of an action that were acquired for activations."""

    action: str
    count: int
    lease_ms: int
    """Longer than the action's timeout."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt to be made."""

    id: str
    action: str
    payload: bytes
    token: int
    attempt: int
    """1 for the first."""
    submitted_at_ms: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt came out; it is what the activation's caller gets."""

    status: Status
    result: bytes
    """A JSON object: what the action returned, or an error."""
    started_at_ms: int
    run_us: int
    router: str
    container: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of an attempt: its outcome, or why there is none (it is tried again then)."""

    id: str
    token: int
    end: Outcome | str


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation as it is recorded."""

    id: str
    action: str
    state: State
    attempts: int
    submitted_at_ms: int
    due_at_ms: int
    payload: bytes
    reason: str
    finished_at_ms: int | None
    outcome: Outcome | None
    """There is one if, and only if, the state is DONE."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What of an action waits to be claimed now."""

    action: str
    count: int
    """Counted up to a bound."""
    due_at_ms: int
    """Since when the one waits that is claimed next."""
