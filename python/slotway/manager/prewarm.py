"""Makes stem cells and ends them, and gives them to the actions that wish for containers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from slotway.manager.plan import Phase, Wish
from slotway.v1 import ledger_pb2
from slotway.v1.ledger_pb2 import CONTAINER_STATE_CREATING, CONTAINER_STATE_INITIALISING

if TYPE_CHECKING:
    from slotway.manager.books import Books


def keep_cells(books: Books, now: float) -> None:
    """Stages what there is to be done to have as many cells as are to be there."""
    if not (books.policy.prewarm or books.cells.idle()):
        return
    busy = bool(books.hungry) or any(
        container.state == CONTAINER_STATE_CREATING and not container.is_cell
        for container in books.containers.values()
    )
    for kind, refill in books.cells.look(now, busy=busy).items():
        for name in refill.retire:
            books.drain(books.containers[name], "a stem cell that is not needed")
        for _ in range(refill.create):
            stock = books.cells.stock(kind)
            cell = ledger_pb2.ContainerRecord(
                kind=kind, made_for=stock.concurrency, memory_mib=stock.memory_mib
            )
            if not _has_room(books, cell):
                return
            books.create(cell)


def _has_room(books: Books, cell: ledger_pb2.ContainerRecord) -> bool:
    used_mib = sum(container.record.memory_mib for container in books.containers.values())
    return (
        len(books.containers) < books.policy.containers_max
        and used_mib + cell.memory_mib <= books.policy.memory_mib_max
        and books.addresses.left() != 0
    )


def give_cells(books: Books, wishes: list[Wish], now: float) -> list[Wish]:
    """Gives cells to the actions that wish for containers, in turns; returns what is left of the
    wishes."""
    left = {wish.action: wish for wish in wishes}
    turn = list(left)
    while turn:
        for name in list(turn):
            action, wish = books.actions[name].record, left[name]
            cell = books.cells.take(action) if wish.count else None
            if cell is None:
                turn.remove(name)
                continue
            left[name] = replace(wish, count=wish.count - 1)
            record = cell.record
            record.action, record.revision = action.name, action.revision
            record.capacity, record.timeout_ms = action.concurrency, action.timeout_ms
            books.ledger.give(cell.id, action.concurrency)
            books.enlist(cell)
            books.cells.started(action, now)
            books.actions[name].admitted_at = now
            books.enter(cell, CONTAINER_STATE_INITIALISING)
            assert cell.phase is Phase.COMING
    return [wish for wish in left.values() if wish.count]
