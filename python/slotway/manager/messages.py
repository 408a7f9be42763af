"""What the leader says to its Routers: one message per turn and router, in the words of its term.

Nothing here decides; orders are taken from the ledger, which gives them out only when they may be
sent.
"""

from __future__ import annotations

import asyncio

from google.protobuf import duration_pb2

from slotway.manager.books import Books
from slotway.manager.container import Container
from slotway.manager.failures import refusal_of
from slotway.manager.plan import Decisions
from slotway.manager.sessions import PROTOCOL_MAX, PROTOCOL_MIN, Session
from slotway.v1 import manager_pb2

REST_PERIODS = 2
"""Between two beats to a Router that is told nothing else; standbys hear every one."""
ASK_S_MIN = 0.02
"""Between two questions to a Router what idles there."""


class Messages:
    """Composes drafts in the routers' sessions, and sends them."""

    def __init__(self, manager: str, books: Books) -> None:
        self.turn = 0
        """The turn of the loop, told with every message."""
        self._beats = 0
        self._manager, self._books = manager, books
        self._ledger, self._routers = books.ledger, books.routers

    def greet(self, session: Session) -> None:
        """A stream is told who leads; it will be told everything anew."""
        period = duration_pb2.Duration()
        period.FromMilliseconds(int(self._routers.period_s * 1000))
        session.told.clear()
        session.peers.clear()
        session.draft.welcome.CopyFrom(
            manager_pb2.Welcome(
                protocol_min=PROTOCOL_MIN,
                protocol_max=PROTOCOL_MAX,
                manager=self._manager,
                period=period,
            )
        )

    def tell(self, name: str, decisions: Decisions) -> None:
        """Peers, and why waiting requests cannot be served; those that only wait for slots to come
        from elsewhere can."""
        now = asyncio.get_running_loop().time()
        hopeless = decisions.unmet > 0 or name not in self._books.actions
        error = refusal_of(self._books, name, now) if hopeless else None
        for router in self._routers.by_id.values():
            session = router.session
            if session is None or not self._ledger.known(router.id):
                continue
            if error is not None and router.facts.waiting.get(name):
                refusal = session.draft.refusals.add(
                    action=name, reason=error.reason, message=str(error)
                )
                if error.retry_delay is not None:
                    refusal.retry_delay.FromTimedelta(error.retry_delay)
                router.facts.refused(name)
            if router.id in decisions.ask:
                due_at = router.asked_at + ASK_S_MIN
                if due_at <= now:
                    router.asked_at, session.draft.ask_demand = now, True
                else:
                    self._books.wake_at(due_at, name)
            peers = []
            for peer_id in decisions.peers.get(router.id, ()):
                peer = self._routers.by_id[peer_id]
                peers.append((peer_id, peer.facts.waiting.get(name, 0)))
            if tuple(peers) != session.peers.get(name, ()):
                session.peers[name] = tuple(peers)
                told = session.draft.peers.add(action=name)
                for peer_id, waiting in peers:
                    address = self._routers.by_id[peer_id].address
                    told.peers.add(incarnation=peer_id, address=address, waiting=waiting)

    def ended(self, container: str, holders: list[str], how: str = "") -> None:
        """A container has ended: all who hold a share, or have heard of it, are told, and how."""
        for router in self._routers.by_id.values():
            session = router.session
            if session is not None and (router.id in holders or container in session.told):
                session.draft.ended_containers.append(container)
                if how:
                    session.draft.endings[container] = how
                session.told.discard(container)

    def beat(self) -> None:
        """Shows every router that the loop turns, once in some periods."""
        self._beats += 1
        if self._beats % REST_PERIODS:
            return
        for router in self._routers.by_id.values():
            if router.session is not None:
                router.session.flush(self._books.term, self.turn, beat=True)

    def flush(self) -> None:
        """Sends what there is to say."""
        for router in self._routers.by_id.values():
            if router.session is not None:
                router.session.flush(self._books.term, self.turn)

    def orders(self) -> None:
        """Sends the orders that may be sent now."""
        now = asyncio.get_running_loop().time()
        for order in self._ledger.orders():
            router = self._routers.get(order.router)
            container = self._books.containers.get(order.container)
            if router is None or router.session is None or container is None:
                continue
            session = router.session
            if session.stream != order.stream:
                continue
            counter = order.version[2]
            message = session.draft.orders.add(
                container_id=order.container, target=order.target, counter=counter
            )
            if order.container not in session.told and order.target:
                session.told.add(order.container)
                message.container.CopyFrom(self._describe(container))
            router.facts.sent(order.container, counter, order.target, now)
        self.flush()

    def _describe(self, container: Container) -> manager_pb2.Container:
        record = container.record
        action = self._books.actions.get(record.action)
        parameters = b""
        if action is not None and action.record.revision == record.revision:
            parameters = action.record.parameters.encode()
        described = manager_pb2.Container(
            action=record.action,
            revision=record.revision,
            address=record.address,
            capacity=record.capacity,
            parameters=parameters,
        )
        described.timeout.FromMilliseconds(record.timeout_ms)
        return described
