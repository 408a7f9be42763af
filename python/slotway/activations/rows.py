"""Between rows and what decides over them: locked and read, decided by `state`, written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from slotway.activations.activation import Activation, Outcome, Status
from slotway.activations.schema import activation
from slotway.activations.state import IllegalTransitionError, Standing, State

STANDING = (
    activation.c.id,
    activation.c.state,
    activation.c.attempts,
    activation.c.token,
    activation.c.due_at_ms,
    activation.c.expires_at_ms,
    activation.c.deadline_ms,
    activation.c.reason,
)
_MOVED = sa.update(activation).where(activation.c.id == sa.bindparam("row"))
_MOVE = _MOVED.values({column.name: sa.bindparam(column.name) for column in STANDING[1:]})
_OUTCOME = ("status", "result", "started_at_ms", "run_us", "router", "container")
_FINISH = _MOVE.values({name: sa.bindparam(name) for name in (*_OUTCOME, "finished_at_ms")})


def move(
    connection: sa.Connection,
    ids: Sequence[str],
    decide: Callable[[Standing, str], Standing],
    outcomes: dict[str, Outcome] | None = None,
    now_ms: int = 0,
) -> dict[str, State]:
    """Locks the activations and writes what is decided; those that it is illegal for stay."""
    if not ids:
        return {}
    locked = sa.select(*STANDING).where(activation.c.id.in_(ids))
    moved = {}
    for row in connection.execute(locked.order_by(activation.c.id).with_for_update()):
        try:
            moved[row.id] = decide(standing_of(row), row.id)
        except IllegalTransitionError:
            continue
    write(connection, moved, outcomes or {}, now_ms)
    return {id: new.state for id, new in moved.items()}


def write(
    connection: sa.Connection,
    moved: dict[str, Standing],
    outcomes: dict[str, Outcome] | None = None,
    now_ms: int = 0,
) -> None:
    """Writes where activations stand now, with the outcome of each that is done."""
    done, others = [], []
    for id, new in moved.items():
        row = {"row": id, **row_of(new)}
        if new.state is State.DONE:
            assert outcomes is not None
            outcome = outcomes[id]
            row.update({name: getattr(outcome, name) for name in _OUTCOME}, finished_at_ms=now_ms)
            done.append(row)
        else:
            others.append(row)
    if done:
        connection.execute(_FINISH, done)
    if others:
        connection.execute(_MOVE, others)


def row_of(standing: Standing) -> dict[str, object]:
    """As columns."""
    return {column.name: getattr(standing, column.name) for column in STANDING[1:]}


def standing_of(row: Any) -> Standing:
    """From a row that begins with `STANDING`."""
    return Standing(State(row[1]), *row[2:8])


def activation_of(row: Any) -> Activation:
    """From a whole row."""
    outcome = None
    if row.state == State.DONE:
        values = {name: getattr(row, name) for name in _OUTCOME}
        outcome = Outcome(**{**values, "status": Status(row.status)})
    return Activation(
        id=row.id,
        action=row.action,
        state=State(row.state),
        attempts=row.attempts,
        submitted_at_ms=row.submitted_at_ms,
        due_at_ms=row.due_at_ms,
        payload=row.payload,
        reason=row.reason,
        finished_at_ms=row.finished_at_ms,
        outcome=outcome,
    )
