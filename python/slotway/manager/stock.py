"""What the ledger and the engine say of the same containers."""

from __future__ import annotations

from slotway.drivers.base import Driver
from slotway.manager.books import Books
from slotway.manager.container import Container
from slotway.manager.plan import Phase
from slotway.manager.starts import Starts
from slotway.v1.ledger_pb2 import CONTAINER_STATE_CREATING, CONTAINER_STATE_DESTROYING


def recorded(books: Books, driver: Driver) -> list[str]:
    """The containers that the driver's engine ought to know."""
    made = _made_by(books, driver)
    return [container.id for container in made if container.state != CONTAINER_STATE_CREATING]


async def end_missing(books: Books, driver: Driver, starts: Starts) -> None:
    """Ends containers that serve, but that the engine does not have, before anything of them is
    granted: an address whose network is gone is routed like any other, out of this machine."""
    running = await starts.running()
    if running is None:
        return
    for container in _made_by(books, driver):
        if container.phase in (Phase.READY, Phase.DRAINING) and container.id not in running:
            books.enter(container, CONTAINER_STATE_DESTROYING, "the engine does not have it")


def _made_by(books: Books, driver: Driver) -> list[Container]:
    return [
        container
        for container in books.containers.values()
        if container.record.driver == driver.name and container.record.engine == driver.engine()
    ]
