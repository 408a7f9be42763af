"""What the ledger and the engine say of the same containers."""

from __future__ import annotations

from slotway.drivers.base import Driver
from slotway.manager.books import Books
from slotway.manager.plan import Phase
from slotway.manager.starts import Starts, made_by
from slotway.v1.ledger_pb2 import CONTAINER_STATE_CREATING, CONTAINER_STATE_DESTROYING


def recorded(books: Books, driver: Driver) -> list[str]:
    """The containers that the driver's engine ought to know."""
    return [
        container.id
        for container in books.containers.values()
        if made_by(driver, container) and container.state != CONTAINER_STATE_CREATING
    ]


async def end_missing(books: Books, driver: Driver, starts: Starts) -> None:
    """Ends containers that serve, but that the engine does not have, before anything of them is
    granted: an address whose network is gone is routed like any other, out of this machine."""
    running = await starts.running()
    if running is None:
        return
    for container in list(books.containers.values()):
        serves = container.phase in (Phase.READY, Phase.DRAINING)
        if serves and made_by(driver, container) and container.id not in running:
            books.enter(container, CONTAINER_STATE_DESTROYING, "the engine does not have it")
