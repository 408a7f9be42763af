"""The leader's loop: observe, plan, commit, act; one turn at a time.

What happens while a commit is on its way makes the next turn, so that many events share a commit.
Nothing that a commit decides is sent or done before it is known to be applied; what needs no
commit (heartbeats, the ends of containers, refusals) goes out before. A wedged loop beats no more,
and so looks dead to everyone.
"""

from __future__ import annotations

import asyncio
from typing import assert_never

import structlog

from slotway._slotcore import Ledger, LedgerError
from slotway.drivers.base import ContainerId, Driver
from slotway.errors import SlotwayError
from slotway.etcd import Client
from slotway.manager import failures
from slotway.manager.books import Books
from slotway.manager.chain import Chain, DeposedError, Term
from slotway.manager.commits import Commits
from slotway.manager.container import Container
from slotway.manager.followers import Followers
from slotway.manager.inbox import (
    Closed,
    Ended,
    Happening,
    Inbox,
    Listed,
    Opened,
    Probed,
    Reported,
    Started,
    Write,
)
from slotway.manager.ledger import ForgottenError, LedgerSeen, term_of
from slotway.manager.messages import Messages
from slotway.manager.plan import Phase
from slotway.manager.policy import Policy
from slotway.manager.replica import Replica
from slotway.manager.routers import Router, Routers
from slotway.manager.sessions import PROTOCOL_MAX, PROTOCOL_MIN, Session
from slotway.manager.starts import Starts
from slotway.manager.stock import end_missing, recorded
from slotway.records import Keys
from slotway.v1 import ledger_pb2, manager_pb2

log = structlog.get_logger(__name__)

_DESTROYING = ledger_pb2.CONTAINER_STATE_DESTROYING
COPY_S = 0.5
"""How long a takeover waits for its copy of the ledger, before it reads all of it from etcd."""
RECOVER_LOOK_S = 0.1
RECOVER_SAY_S = 10.0
STOCK_S = 30.0
"""Between two comparisons of the ledger with what the engine has."""


class Loop:
    """Leads for one term. `run` raises DeposedError when that is over."""

    def __init__(
        self,
        *,
        manager: str,
        term: Term,
        ledger: Ledger,
        replica: Replica,
        seen: LedgerSeen,
        followers: Followers,
        routers: Routers,
        inbox: Inbox,
        client: Client,
        keys: Keys,
        driver: Driver,
        starts: Starts,
        policy: Policy,
    ) -> None:
        self.term = term
        self.ready = False
        """Whether it has taken over."""
        self.turned_at = self._now()
        """When the newest turn began; the loop's seconds."""
        self.changed = asyncio.Event()
        """Set, and replaced, after every turn."""
        self.books = Books(ledger, routers, driver, keys, term, policy, self._now)
        self._ledger, self._routers, self._inbox = ledger, routers, inbox
        self._replica, self._seen, self._followers = replica, seen, followers
        self._recovering = seen.record.recovering
        self._held_back: list[tuple[str, int]] = []
        """Streams (router, number) that were open before anybody was greeted."""
        self._old: list[str] | None = None
        """Containers of older epochs that ran when the engine was asked last; None: not asked."""
        self._driver, self._starts = driver, starts
        self._chain = Chain(client, keys, term)
        self._messages = Messages(manager, self.books)
        self._commits = Commits(self._chain, keys, self.books, self._messages, starts)
        self._beat_at = 0.0

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Takes over, and leads until deposed; cancelling it leaves everything as it is."""
        helpers = []
        try:
            await self._take_over()
            helpers.append(asyncio.create_task(self._starts.follow_ends(), name="engine-ends"))
            if self._recovering:
                await self._end_old_epochs()
            await self._greet()
            self.ready = True
            helpers.append(asyncio.create_task(self._take_stock(), name="engine-stock"))
            while True:
                await self._turn(await self._inbox.take(self._next_look()))
        finally:
            # First what has to happen even if this is cancelled once more while it waits.
            self._ledger.depose()
            self._commits.give_up(DeposedError("this Manager does not lead any more"))
            for router in self._routers.by_id.values():
                if router.session is not None:
                    router.session.discard()
            try:
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
            finally:
                await self._starts.stop()

    def _next_look(self) -> float:
        wake_at = self.books.wake()
        if self.books.dirty or self._commits.waiting:
            return self._now()
        return self._beat_at if wake_at is None else min(wake_at, self._beat_at)

    async def _take_over(self) -> None:
        revision, addresses = await self._chain.begin()
        records = await self._replica.take(revision, addresses, COPY_S)
        records = records or await self._chain.fence()
        shares = self.books.adopt(records, taken_over=True)
        try:
            self._held_back = self._ledger.lead(self.term, records.revision, shares)
        except LedgerError as exc:
            raise ForgottenError(f"the ledger in etcd contradicts itself: {exc}") from exc
        self._commits.attend_all()
        self.books.resume()

    async def _greet(self) -> None:
        self._recovering = False
        if self._driver.numbered is not None:
            await end_missing(self.books, self._driver, self._starts)
        for router, stream in self._held_back:
            known = self._routers.get(router)
            if known is not None and known.session and known.session.stream == stream:
                self._messages.greet(known.session)
        await self._turn([])

    async def _end_old_epochs(self) -> None:
        """Ends whatever older epochs left, recorded or not; nobody is greeted before (§3.10).

        A container of another engine than this Manager's is waited for: nobody can prove its end.
        """
        said_at = asked_at = 0.0
        while True:
            now = self._now()
            for container in self.books.containers.values():
                if self._is_old(container) and container.phase is not Phase.ENDING:
                    self.books.enter(container, _DESTROYING, "it is of an old epoch")
            left = [one.id for one in self.books.containers.values() if self._is_old(one)]
            if not left and self._old == [] and await self._commits.recovered(self._seen):
                log.warning("recovered: nothing of an older epoch is left", epoch=self.term[0])
                return
            if now - said_at >= RECOVER_SAY_S:
                said_at = now
                log.warning("ends the containers of older epochs", left=left, strays=self._old)
            if not left and now - asked_at >= RECOVER_LOOK_S:
                asked_at = now
                await self._starts.take_stock([])
            await self._turn(await self._inbox.take(now + RECOVER_LOOK_S))

    def _is_old(self, container: Container) -> bool:
        return term_of(container.record.term)[0] < self.term[0]

    async def _take_stock(self) -> None:
        while True:
            await self._starts.take_stock(recorded(self.books, self._driver))
            await asyncio.sleep(STOCK_S)

    async def _turn(self, happenings: list[Happening]) -> None:
        self._messages.turn += 1
        self.turned_at = now = self._now()
        for happening in happenings:
            await self._observe(happening)
        if now >= self._beat_at:
            self._beat_at = now + self._routers.period_s
            self.books.look()
            self._beat()
        self.books.wake()
        for name, decisions in self.books.plan().items():
            self._messages.tell(name, decisions)
        self._messages.flush()
        await self._commit()
        self.changed.set()
        self.changed = asyncio.Event()

    async def _commit(self) -> None:
        """Commits, and beats meanwhile: a leader that waits for a slow etcd is not dead."""
        self._await_commit(self._now())
        try:
            await self._commits.run()
        finally:
            self._commit_timer.cancel()

    def _await_commit(self, began_at: float) -> None:
        waited_s = self._now() - began_at
        if waited_s > self._routers.period_s / 2:
            self._beat(waited_s)
        self._commit_timer = asyncio.get_running_loop().call_later(
            self._routers.period_s, self._await_commit, began_at
        )

    def _beat(self, commit_s: float = 0.0) -> None:
        self._messages.beat()
        self._followers.beat(self.term, self._messages.turn, commit_s)

    async def _observe(self, happening: Happening) -> None:
        match happening:
            case Reported(session, message):
                session.unread.release()
                router = self._routers.get(session.router)
                if router is not None and router.session is session:
                    self._hear(router, session, message)
            case Opened(session):
                self._open(session)
            case Closed(session):
                closed = self._routers.close(session)
                if closed is not None:
                    self._ledger.detach(session.router, session.stream)
                    self.books.changed(closed)
            case Started():
                failures.started(self.books, happening, self._now())
            case Ended(container):
                self._ended(container)
            case Listed():
                await self._compare(happening)
            case Probed(router_id, gone):
                vanished = self._routers.probed(router_id, gone=gone)
                if vanished is not None:
                    log.warning("a router is gone", router=vanished.name, incarnation=router_id)
                    self.books.changed(vanished)
            case Write():
                self._commits.add(happening)
            case _:
                assert_never(happening)

    def _open(self, session: Session) -> None:
        try:
            router = self._routers.open(
                session, has_shares=bool(self._ledger.containers_of(session.router))
            )
        except SlotwayError as exc:
            session.close(exc)
            return
        if not self._ledger.attach(session.router, session.stream):
            session.close(SlotwayError("a newer stream is open", reason="NO_LEADER"))
            return
        self.books.changed(router)
        if self._recovering:
            self._held_back.append((session.router, session.stream))
        else:
            self._messages.greet(session)

    def _hear(self, router: Router, session: Session, message: manager_pb2.AttachRequest) -> None:
        now = self._now()
        router.facts.reported_at = now
        if message.leaving and not router.leaving:
            router.leaving = True
            self.books.changed(router)
        if message.HasField("hello"):
            self._hello(router, session, message.hello)
        if not self._ledger.known(router.id):
            return  # what it says before its Hello in this term does not count
        for said in message.acknowledgements:
            version = (said.version.term.epoch, said.version.term.revision, said.version.counter)
            container = self.books.containers.get(said.container_id)
            if container is None or container.ended:
                session.draft.ended_containers.append(said.container_id)
                continue
            stream, before = session.stream, self._ledger.target(container.id, router.id)
            if self._ledger.acknowledge(router.id, stream, container.id, said.holding, version):
                self.books.touched(container)
            elif self._ledger.target(container.id, router.id) != before:
                self.books.ordered(router, [container.id])
            counter = said.version.counter if version[:2] == self.term else 0
            router.facts.acknowledged(container.id, said.holding, counter)
        for name in router.facts.report(message, self.term, self._messages.turn):
            self.books.dirty.add(name)
        self.books.dirty.update(self.books.asked_at)  # it may be the answer
        for trouble in message.troubles:
            self._trouble(trouble)

    def _hello(self, router: Router, session: Session, hello: manager_pb2.Hello) -> None:
        if hello.protocol_min > PROTOCOL_MAX or hello.protocol_max < PROTOCOL_MIN:
            session.close(
                SlotwayError(
                    f"the Router speaks protocols {hello.protocol_min} to {hello.protocol_max}, "
                    f"the Manager {PROTOCOL_MIN} to {PROTOCOL_MAX}: upgrade the older one",
                    reason="PROTOCOL_MISMATCH",
                )
            )
            return
        term = (hello.term.epoch, hello.term.revision)
        holdings = [(held.container_id, held.held, held.running) for held in hello.holdings]
        try:
            gone = self._ledger.hello(router.id, session.stream, term, holdings)
        except LedgerError as exc:
            raise ForgottenError(
                f"Router {router.name} holds what etcd does not know of: {exc}; "
                "was etcd restored? see `slotway cluster recover`"
            ) from exc
        if self._ledger.known(router.id) and term == self.term:
            router.facts.hold((container, held) for container, held, _ in holdings)
            self.books.ordered(router, [name for name, held, running in holdings if running > held])
            session.draft.ended_containers.extend(gone)
            self.books.changed(router)

    def _trouble(self, trouble: manager_pb2.ContainerTrouble) -> None:
        container = self.books.containers.get(trouble.container_id)
        if container is None or container.ended:
            return
        if trouble.kind == manager_pb2.ContainerTrouble.KIND_REFUSED:
            self._starts.check(container)
            if container.retire_at is None and container.refuses(self._now()):
                container.retire_at = self._now()
        elif container.retire_at is None:
            alone = container.record.capacity == 1
            grace_s = 0.0 if alone else self.books.policy.overrun_grace_s
            container.retire_at = self._now() + grace_s
            self.books.look_at = min(self.books.look_at, container.retire_at)
            if alone:
                self._beat_at = self._now()

    def _ended(self, name: str) -> None:
        container = self.books.containers.get(name)
        if container is None or container.ended:
            return
        cause = self._driver.ending(ContainerId(name))
        failures.ended(self.books, container, cause, self._now())
        log.info("container", id=name, action=container.record.action or None, state="ended")
        self._messages.ended(name, self.books.end(container), cause)

    async def _compare(self, stock: Listed) -> None:
        names = self.books.containers
        self._old = [
            one.label.id for one in stock.found if one.running and one.label.epoch < self.term[0]
        ]
        self._routers.forget({holder for name in names for holder in self._ledger.shares(name)})
        for name in stock.ended:
            self._ended(name)
        for found in stock.found:
            name = found.label.id
            if name in self.books.containers:
                continue
            if term_of(found.label.term) > self.term:
                raise DeposedError(f"container {name} is of the newer term {found.label.term}")
            if await self._commits.absent(name):
                log.warning("a container that no record speaks of is ended", id=name)
                await self._starts.remove_stray(name)
