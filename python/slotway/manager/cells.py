"""The stem cells: which are there, who takes one, and what was started cold.

A cell is a container without an action. Its record has capacity 0, so that nothing of it can be
granted before it is an action's; see `plan.prewarm` for how many there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from slotway.manager.container import Container
from slotway.manager.plan import Cell, Refill, Stock, refill
from slotway.v1 import ledger_pb2
from slotway.v1.ledger_pb2 import CONTAINER_STATE_CREATING, CONTAINER_STATE_PREWARMED

PAUSE_S = 1.0
PAUSE_S_MAX = 60.0
"""Between two tries to make cells, after some that failed in a row."""


class Cells:
    """The cells of one term. Times are the loop's seconds."""

    def __init__(self, stocks: Iterable[Stock]) -> None:
        self._stocks = {stock.kind: stock for stock in stocks}
        self._cells: dict[str, Container] = {}
        self._starts = {stock.kind: deque[float](maxlen=stock.maximum) for stock in stocks}
        self._failures = dict.fromkeys(self._stocks, 0)
        self._not_before = dict.fromkeys(self._stocks, 0.0)

    def clear(self) -> None:
        """None is there as far as is known."""
        self._cells.clear()

    def add(self, cell: Container) -> None:
        """A cell is there, or comes."""
        self._cells[cell.id] = cell

    def discard(self, container: str) -> None:
        """It is no cell any more."""
        self._cells.pop(container, None)

    def take(self, action: ledger_pb2.ActionRecord) -> Container | None:
        """The oldest cell that can become this action's container; it is no cell any more."""
        fit = [cell for cell in self._cells.values() if _fits(cell, action)]
        if not fit:
            return None
        cell = min(fit, key=lambda cell: (cell.since, cell.id))
        self.discard(cell.id)
        self._failures[action.kind] = 0
        return cell

    def started(self, action: ledger_pb2.ActionRecord, now: float) -> None:
        """A container of the action was started cold."""
        starts = self._starts.get(action.kind)
        if starts is not None:
            starts.append(now)

    def failed(self, cell: Container, now: float) -> None:
        """It did not come, or ended by itself: the next ones come later."""
        kind = cell.record.kind
        if kind in self._stocks and now >= self._not_before[kind]:
            self._failures[kind] += 1
            pause_s = PAUSE_S * 2.0 ** (self._failures[kind] - 1)
            self._not_before[kind] = now + min(PAUSE_S_MAX, pause_s)

    def pauses(self, kind: str) -> bool:
        """Whether cells of the kind failed, and none was taken since."""
        return self._failures[kind] > 0

    def idle(self) -> list[Container]:
        """Those that may end for somebody else's sake."""
        return [cell for cell in self._cells.values() if _alive(cell)]

    def look(self, now: float, *, busy: bool) -> Mapping[str, Refill]:
        """What there is to be done, by kind; cells that are of no stock any more end."""
        result = {}
        kept = []
        for kind, stock in self._stocks.items():
            cells = [cell for cell in self.idle() if _is_of(stock, cell)]
            kept += cells
            late = busy or now < self._not_before[kind]
            views = [Cell(cell.id, cell.since) for cell in cells]
            result[kind] = refill(stock, views, self._starts[kind], now, busy=late)
        strange = [cell.id for cell in self.idle() if cell not in kept]
        if strange:
            result[""] = Refill(retire=strange)
        return result

    def stock(self, kind: str) -> Stock:
        """What is to be kept of the kind."""
        return self._stocks[kind]


def _alive(cell: Container) -> bool:
    coming = cell.state == CONTAINER_STATE_CREATING and not cell.failed
    return not cell.ended and (coming or cell.state == CONTAINER_STATE_PREWARMED)


def _fits(cell: Container, action: ledger_pb2.ActionRecord) -> bool:
    record = cell.record
    return (
        _alive(cell)
        and record.state == CONTAINER_STATE_PREWARMED
        and (record.kind, record.memory_mib) == (action.kind, action.memory_mib)
        and action.concurrency <= record.made_for
        and not (action.image or action.network)
    )


def _is_of(stock: Stock, cell: Container) -> bool:
    record = cell.record
    made = (record.kind, record.memory_mib, record.made_for)
    return made == (stock.kind, stock.memory_mib, stock.concurrency)
