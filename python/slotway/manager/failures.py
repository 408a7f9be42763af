"""What it means for an action, and for those who look at it, that containers fail and end."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import structlog

from slotway.drivers.base import DriverError, EndedLoadingError
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

ENDED_STARTING = "the container ended while it started"


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
            why = f"{ENDED_STARTING}: {cause}" if cause else ENDED_STARTING
            _failed(books, action, EndedLoadingError(cause) if loading else DriverError(why), now)
    elif container.phase is Phase.READY and action is not None:
        # Where one goes on for long, it is not the code: somebody kills the others, or requests do.
        ready = [one for one in books.of(action.record.name) if one.phase is Phase.READY]
        longest_s = max(math.inf if one.ready_at is None else now - one.ready_at for one in ready)
        action.crashed(DriverError(reason), longest_s, now)
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
    serving = action.crashes > 0 and any(c.phase is Phase.READY for c in books.of(name))
    return action.refusal(now, serving=serving)


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
