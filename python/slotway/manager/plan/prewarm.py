"""How many stem cells there are to be of one kind: containers that run, and have no code yet.

A cold start takes one, so that it costs an `/init` only. As many are kept as cold starts of the
kind took or missed within the time to live, at least the minimum and at most the maximum. They are
made while no action waits for a container of its own: off the critical path.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Stock:
    """What is to be kept of one kind."""

    kind: str
    minimum: int
    maximum: int
    ttl_s: float = 300.0
    """A cell that is not needed is kept for so long, and so is the memory of a cold start."""
    memory_mib: int = 256
    concurrency: int = 200
    """The greatest C that a cell's limits are made for."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A stem cell that comes or is there; `since` in seconds."""

    id: str
    since: float


@dataclass(slots=True)
class Refill:
    """What is to be made, and what ends."""

    create: int = 0
    retire: list[str] = field(default_factory=list)


def refill(
    stock: Stock, cells: Iterable[Cell], starts: Iterable[float], now: float, *, busy: bool
) -> Refill:
    """`starts` are the times of cold starts of the kind; `busy` says that actions wait for room or
    for containers that are being created."""
    known = sorted(cells, key=lambda cell: (cell.since, cell.id))
    recent = sum(now - at < stock.ttl_s for at in starts)
    wanted = max(stock.minimum, min(stock.maximum, recent))
    old = [cell.id for cell in known if now - cell.since >= stock.ttl_s]
    return Refill(
        create=0 if busy else max(0, wanted - len(known)),
        retire=old[: max(0, len(known) - wanted)],
    )
