"""The cluster's room for containers, as the plan needs it: what takes it, and what may make way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from slotway.manager.plan import (
    ContainerView,
    Held,
    Inventory,
    Phase,
    Room,
    RouterView,
    Wish,
    reach,
)
from slotway.v1.ledger_pb2 import CONTAINER_STATE_READY

if TYPE_CHECKING:
    from slotway.manager.action import Action
    from slotway.manager.books import Books
    from slotway.manager.container import Container

SOON_S = 0.5
"""A container that drains for longer has requests that run, nobody knows for how long."""


def inventory_of(books: Books, now: float) -> Inventory:
    """What the cluster has, with what is staged."""
    ending, draining, held = [], [], []
    cells = {cell.id for cell in books.cells.idle()}
    for c in books.containers.values():
        memory_mib = c.record.memory_mib
        if c.phase is Phase.ENDING or (c.phase is Phase.DRAINING and now - c.since < SOON_S):
            ending.append(memory_mib)
        elif c.phase is Phase.DRAINING:
            draining.append(memory_mib)
        elif c.id in cells:  # they go before everything else
            held.append(Held(c.id, "", memory_mib, c.since, idle_at=0.0))
        else:
            ready_at = c.since if c.state == CONTAINER_STATE_READY else None
            idle_at = _idle_at(books, c, now) if ready_at is not None else None
            shared = bool(books.ledger.staged_shares(c.id))
            held.append(Held(c.id, c.record.action, memory_mib, ready_at, idle_at, shared))
    return Inventory(
        limits=Room(books.policy.containers_max, books.policy.memory_mib_max),
        held=held,
        ending=Room(len(ending), sum(ending)),
        draining=Room(len(draining), sum(draining)),
        spare=spare_of(books),
        now=now,
        residence_s=books.policy.residence_s,
    )


def _idle_at(books: Books, container: Container, now: float) -> float | None:
    """Since when nothing has run in a ready container, as far as is known; None: something runs.

    Routers that were not heard of for long do not keep it from making way.
    """
    shares = books.ledger.staged_shares(container.id)
    if not shares:
        return container.since if container.idle_since is None else container.idle_since
    since = container.since
    for holder, slots in shares.items():
        router = books.routers.get(holder)
        if router is not None and router.vanished:
            continue
        heard_at = router.facts.reported_at if router else books.began_at
        if now - heard_at >= books.policy.silence_grace_s:
            since = max(since, heard_at)
            continue
        if router is None or router.session is None or not books.ledger.known(holder):
            return None
        if not books.routers.fresh(router, now):
            return None
        idle_at = router.facts.idle_since(container.record.action, container.id, slots)
        if idle_at is None:
            return None
        since = max(since, idle_at)
    return since


def spare_of(books: Books) -> dict[str, float]:
    """Per action with a minimum: how many containers it has ready above that."""
    return {
        name: sum(
            c.state == CONTAINER_STATE_READY and c.record.revision == action.record.revision
            for c in books.of(name)
        )
        - action.record.containers_min
        for name, action in books.actions.items()
        if action.record.containers_min
    }


def keep_warm_of(books: Books, container: Container) -> float:
    """How long the container is kept without any share; seconds."""
    action = books.actions.get(container.record.action)
    if action is None or not action.record.HasField("keep_warm_ms"):
        return books.policy.keep_warm_s
    return action.record.keep_warm_ms / 1000


def room_for(
    books: Books,
    action: Action,
    containers: list[ContainerView],
    routers: list[RouterView],
    now: float,
) -> int:
    """How many more containers of the action the limits may ever admit, as far as it wants them."""
    record = action.record
    if record.memory_mib > books.policy.memory_mib_max:
        return 0
    pause_until = action.pause_until(now)
    if pause_until is not None:
        books.wake_at(pause_until, record.name)
        return 0
    waiting = sum(router.waiting for router in routers)
    room = -(-waiting // record.concurrency) + record.containers_min
    if record.containers_max:
        there = sum(container.phase is not Phase.ENDING for container in containers)
        room = min(room, record.containers_max - there)
    if action.failures:  # one at a time, until one comes to serve
        coming = sum(container.phase is Phase.COMING for container in containers)
        room = min(room, 1 - coming)
    if room <= 0:
        return 0
    wish = Wish(record.name, room, record.memory_mib, action.admitted_at)
    if fits(books, [wish]):
        return room
    books.inventory = books.inventory or inventory_of(books, now)
    return reach(books.inventory, wish)


def fits(books: Books, wishes: Iterable[Wish]) -> bool:
    """Whether there is room for all of them now."""
    containers, memory_mib = len(books.containers), 0
    for wish in wishes:
        containers += wish.count
        memory_mib += wish.count * wish.memory_mib
    if containers > books.policy.containers_max:
        return False
    memory_mib += sum(c.record.memory_mib for c in books.containers.values())
    return memory_mib <= books.policy.memory_mib_max
