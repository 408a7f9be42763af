"""The facts for a plan, from the books, the ledger and what the routers say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slotway.manager.plan import ActionView, ContainerView, RouterView, Share
from slotway.manager.room import room_for

if TYPE_CHECKING:
    from slotway.manager.books import Books
    from slotway.manager.container import Container
    from slotway.manager.routers import Router


def view_of(books: Books, name: str, now: float) -> ActionView:
    """The facts for the plan of one action."""
    action = books.actions.get(name)
    containers = [_container_view(books, name, c) for c in books.of(name)]
    routers = [
        _router_view(books, name, router, now)
        for router in books.routers.by_id.values()
        if router.session is not None or _holds(router.id, containers)
    ]
    facts = {router.id: books.routers.by_id[router.id].facts for router in routers}
    waited = max((one.waited(name) for one in facts.values()), default=0)
    for router in routers:
        router.behind = facts[router.id].turn < waited
    strangers = {holder for c in containers for holder in c.shares} - {r.id for r in routers}
    routers += [
        RouterView(holder, known=False, fresh=False, silent_since=books.began_at)
        for holder in sorted(strangers)
    ]
    record = action.record if action is not None else None
    room, minimum = 0, record.containers_min if record else 0
    if action is not None and (minimum or any(router.waiting for router in routers)):
        room = room_for(books, action, containers, routers, now)
    return ActionView(
        name=name,
        revision=record.revision if record else 0,
        capacity=record.concurrency if record else 1,
        containers=containers,
        routers=routers,
        room=room,
        now=now,
        minimum=minimum,
        asked_at=books.asked_at.get(name),
    )


def _holds(router: str, containers: list[ContainerView]) -> bool:
    return any(router in container.shares for container in containers)


def _container_view(books: Books, action: str, container: Container) -> ContainerView:
    shares = {}
    if not container.ended:
        for holder, slots in books.ledger.staged_shares(container.id).items():
            target = min(slots, books.ledger.target(container.id, holder))
            router = books.routers.get(holder)
            idle = router.facts.idle(action, container.id, target) if router else 0
            changed_at = container.changed_at.get(holder, 0.0)
            confirmed = router is None or router.facts.confirmed(container.id)
            raised_at = container.raised_at.get(holder, 0.0)
            shares[holder] = Share(slots, target, idle, changed_at, confirmed, raised_at)
    return ContainerView(
        container.id,
        container.record.revision,
        container.phase,
        container.record.capacity,
        0 if container.ended else books.ledger.free(container.id),
        shares,
        container.unspread,
    )


def _router_view(books: Books, action: str, router: Router, now: float) -> RouterView:
    known = router.session is not None and books.ledger.known(router.id)
    fresh = known and books.routers.fresh(router, now)
    return RouterView(
        router.id,
        waiting=router.facts.waiting.get(action, 0),
        known=known,
        fresh=fresh,
        stuck=books.routers.stuck(router, now),
        leaving=router.leaving,
        restarted=now < router.restarted_until,
        vanished=router.vanished,
        silent_since=None if fresh else router.facts.reported_at,
    )
