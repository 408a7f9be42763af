"""What time alone brings about for containers: keep-warm, overruns, drains that take too long."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from slotway.manager.room import keep_warm_of, spare_of
from slotway.v1.ledger_pb2 import (
    CONTAINER_STATE_DESTROYING,
    CONTAINER_STATE_DRAINING,
    CONTAINER_STATE_READY,
)

if TYPE_CHECKING:
    from slotway.manager.books import Books
    from slotway.manager.container import Container


def age(books: Books, now: float) -> None:
    """Stages what is due by now."""
    spare = spare_of(books)
    for container in list(books.containers.values()):
        if container.ended:
            continue
        if container.state == CONTAINER_STATE_READY:
            _age_ready(books, container, spare, now)
        elif container.state == CONTAINER_STATE_DRAINING:
            limit_s = container.record.timeout_ms / 1000 + books.policy.drain_grace_s
            if now - container.since >= limit_s:
                books.enter(container, CONTAINER_STATE_DESTROYING, container.record.reason)


def _age_ready(books: Books, container: Container, spare: dict[str, float], now: float) -> None:
    retire_at = container.retire_at
    if retire_at is not None:
        if now >= retire_at:
            books.drain(container, "requests overran or were cut, or connections refused")
            return
        books.look_at = min(books.look_at, retire_at)
    if books.ledger.staged_shares(container.id):
        container.idle_since = None
    elif container.idle_since is None:
        container.idle_since = now
    elif now - container.idle_since >= keep_warm_of(books, container):
        name = container.record.action
        left = spare.get(name, math.inf)
        if left > 0:
            spare[name] = left - 1
            books.drain(container, "it was idle")
