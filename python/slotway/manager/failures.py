"""What it means for an action, and for those who look at it, that containers fail and end."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import structlog

from slotway.drivers.base import DriverError, ended_early
from slotway.errors import SlotwayError
from slotway.manager.action import Action
from slotway.manager.container import Container
from slotway.manager.endings import REASON_MAX, Ending
from slotway.manager.inbox import Started
from slotway.manager.plan import Phase
from slotway.v1.ledger_pb2 import (
    CONTAINER_STATE_CREATING,
    CONTAINER_STATE_DESTROYING,
    CONTAINER_STATE_INITIALISING,
)

if TYPE_CHECKING:
    from slotway.manager.books import Books

log = structlog.get_logger(__name__)


def started(books: Books, happening: Started, now: float) -> None:
    """The driver has done, or could not do, what a container's state asked for."""
    container = books.containers.get(happening.container)
    if container is None or container.ended or container.phase is not Phase.COMING:
        return
    action = _action_of(books, container)
    if happening.error is not None:
        container.failed, container.why = True, str(happening.error)
        log.warning("a container failed", id=container.id, why=str(happening.error))
        if container.is_cell:
            books.cells.failed(container, now)
        if action is not None:
            _failed(books, action, happening.error, now)
    else:
        container.done = happening.state
        if action is not None and happening.state == CONTAINER_STATE_INITIALISING:
            action.served()
    books.advance(container)


def ended(books: Books, container: Container, cause: str, now: float) -> None:
    """The container has ended; its record is about to go. `cause` is what its engine says."""
    action = _action_of(books, container)
    crashed = container.state != CONTAINER_STATE_DESTROYING
    reason = f"it ended by itself: {cause}" if cause else "it ended by itself"
    served_s = None if container.ready_at is None else now - container.ready_at
    if container.phase is Phase.COMING:
        if container.is_cell:
            books.cells.failed(container, now)
        elif action is not None:
            loading = container.state == CONTAINER_STATE_INITIALISING
            _failed(books, action, ended_early(cause, loading=loading), now)
    elif crashed and action is not None:  # also while it drains: a broken connection begins that
        others = [one for one in books.of(action.record.name) if one.phase is Phase.READY]
        action.crashed(
            DriverError(reason),
            _served_s(container, now),
            now,
            longest_s=max((_served_s(one, now) for one in others), default=0.0),
        )
        books.dirty.add(action.record.name)
    books.endings.note(
        Ending(
            container.id,
            container.record.action,
            container.record.revision,
            (reason if crashed else container.record.reason)[:REASON_MAX],
            crashed,
            served_s,
            time.time_ns() // 1_000_000,
        )
    )


def _served_s(container: Container, now: float) -> float:
    """For how long it has served; for ever, if that was not under this leader alone."""
    return math.inf if container.ready_at is None else now - container.ready_at


def refusal_of(books: Books, name: str, now: float) -> SlotwayError | None:
    """Why requests of this action that wait are to be refused; None: they may wait."""
    action = books.actions.get(name)
    if action is None:
        return SlotwayError(f"no action is named {name}", reason="ACTION_NOT_FOUND")
    if action.record.memory_mib > books.policy.memory_mib_max:
        return SlotwayError(
            f"a container of {name} takes {action.record.memory_mib} MiB, and the cluster has "
            f"{books.policy.memory_mib_max} MiB",
            reason="CLUSTER_FULL",
        )
    used_up = books.addresses.refusal()
    if used_up is not None and not any(
        c.phase in (Phase.COMING, Phase.READY) for c in books.of(name)
    ):
        return used_up
    return action.refusal(now)


def _action_of(books: Books, container: Container) -> Action | None:
    """The action, if the container is of its present revision."""
    action = books.actions.get(container.record.action)
    current = action is not None and action.record.revision == container.record.revision
    return action if current else None


def _failed(books: Books, action: Action, error: SlotwayError, now: float) -> None:
    action.failed(error, now)
    books.dirty.add(action.record.name)
    for other in books.of(action.record.name):
        if other.state == CONTAINER_STATE_CREATING and not other.begun:
            other.failed = True  # it would fail as well; it is not created for that
            other.why = str(error)
            books.advance(other)
