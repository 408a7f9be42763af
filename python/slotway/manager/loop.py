"""The leader's loop: observe, plan, commit, act; one turn at a time.

What happens while a commit is on its way makes the next turn, so that many events share a commit.
Nothing that a commit decides is sent or done before it is known to be applied; what needs no
commit (heartbeats, the ends of containers, refusals) goes out before. A wedged loop beats no more,
and so looks dead to everyone.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import assert_never

import structlog
from google.protobuf import duration_pb2

from slotway._slotcore import Commit, Ledger, LedgerError
from slotway.drivers.base import Driver
from slotway.errors import SlotwayError
from slotway.etcd import Client, Compare, Delete, Put
from slotway.manager.action import Action
from slotway.manager.books import Books, Policy
from slotway.manager.chain import Chain, DeposedError, Outcome, Term
from slotway.manager.container import Container
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
from slotway.manager.plan import Decisions, Phase
from slotway.manager.routers import Router, Routers
from slotway.manager.sessions import PROTOCOL_MAX, PROTOCOL_MIN, Session
from slotway.manager.starts import Starts
from slotway.records import Keys, encode
from slotway.v1 import ledger_pb2, manager_pb2

log = structlog.get_logger(__name__)

RECORDS_MAX = 126
"""Records in one transaction: etcd takes 128 comparisons, two of them are of leader and turn."""
STOCK_S = 30.0
"""Between two comparisons of the ledger with what the engine has."""


class ForgottenError(SlotwayError):
    """etcd has forgotten grants: it was wiped or restored. Nothing may be served from it."""

    reason = "EPOCH_MISMATCH"


class Loop:
    """Leads for one term. `run` raises DeposedError when that is over."""

    def __init__(
        self,
        *,
        manager: str,
        term: Term,
        ledger: Ledger,
        routers: Routers,
        inbox: Inbox,
        client: Client,
        keys: Keys,
        driver: Driver,
        starts: Starts,
        policy: Policy,
    ) -> None:
        self.term = term
        self.turn = 0
        self.ready = False
        """Whether it has taken over."""
        self.turned_at = self._now()
        """When the newest turn began; the loop's seconds."""
        self.changed = asyncio.Event()
        """Set, and replaced, after every turn."""
        self._manager, self._ledger, self._routers, self._inbox = manager, ledger, routers, inbox
        self._keys, self._driver = keys, driver
        self._chain = Chain(client, keys, term)
        self._starts = starts
        self.books = Books(ledger, routers, driver, keys, term, policy, self._now)
        self._writes: list[Write] = []
        self._beat_at = 0.0

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Takes over, and leads until deposed; cancelling it leaves everything as it is."""
        helpers = []
        try:
            await self._take_over()
            self.ready = True
            helpers.append(asyncio.create_task(self._starts.follow_ends(), name="engine-ends"))
            helpers.append(asyncio.create_task(self._take_stock(), name="engine-stock"))
            while True:
                await self._turn(await self._inbox.take(self._next_look()))
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await self._starts.stop()
            self._ledger.depose()
            error = DeposedError("this Manager does not lead any more")
            for write in self._writes:
                _fail(write, error)
            for router in self._routers.by_id.values():
                if router.session is not None:
                    router.session.discard()

    def _next_look(self) -> float:
        wake_at = self.books.wake()
        if self.books.dirty or self._writes:
            return self._now()
        return self._beat_at if wake_at is None else min(wake_at, self._beat_at)

    async def _take_over(self) -> None:
        records = await self._chain.fence()
        shares = self.books.adopt(records)
        try:
            streams = self._ledger.lead(self.term, records.revision, shares)
        except LedgerError as exc:
            raise ForgottenError(f"the ledger in etcd contradicts itself: {exc}") from exc
        self.books.resume(taken_over=True)
        for router, stream in streams:
            known = self._routers.get(router)
            if known is not None and known.session and known.session.stream == stream:
                self._greet(known.session)
        await self._turn([])
        for container in list(self.books.containers.values()):
            self._attend(container)

    async def _take_stock(self) -> None:
        while True:
            await self._starts.take_stock(
                [
                    c.id
                    for c in self.books.containers.values()
                    if c.record.driver == self._driver.name
                    and c.record.engine == self._driver.engine()
                    and c.state != ledger_pb2.CONTAINER_STATE_CREATING
                ]
            )
            await asyncio.sleep(STOCK_S)

    async def _turn(self, happenings: list[Happening]) -> None:
        self.turn += 1
        self.turned_at = now = self._now()
        for happening in happenings:
            await self._observe(happening)
        if now >= self._beat_at:
            self._beat_at = now + self._routers.period_s
            self.books.look()
            self._beat()
        self.books.wake()
        for name, decisions in self.books.plan().items():
            self._tell(name, decisions)
        self._flush()
        await self._commit()
        self.changed.set()
        self.changed = asyncio.Event()

    # Observe.

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
                self._started(happening)
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
                self._writes.append(happening)
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
        self._greet(session)

    def _greet(self, session: Session) -> None:
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
            elif self._ledger.acknowledge(
                router.id, session.stream, said.container_id, said.holding, version
            ):
                router.facts.acknowledged(said.container_id, said.holding)
                self.books.touched(container)
        for name in router.facts.report(message, self.term):
            self.books.dirty.add(name)
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
            session.draft.ended_containers.extend(gone)
            self.books.changed(router)

    def _trouble(self, trouble: manager_pb2.ContainerTrouble) -> None:
        container = self.books.containers.get(trouble.container_id)
        if container is None or container.ended:
            return
        if trouble.kind == manager_pb2.ContainerTrouble.KIND_REFUSED:
            self._starts.check(container.id)
        elif container.retire_at is None:
            alone = container.record.capacity == 1
            grace_s = 0.0 if alone else self.books.policy.overrun_grace_s
            container.retire_at = self._now() + grace_s
            if alone:
                self._beat_at = self._now()

    def _started(self, happening: Started) -> None:
        container = self.books.containers.get(happening.container)
        if container is None or container.ended or container.phase is not Phase.COMING:
            return
        action = self.books.actions.get(container.record.action)
        current = action is not None and action.record.revision == container.record.revision
        if happening.error is not None:
            container.failed = True
            log.warning("a container failed", id=container.id, why=str(happening.error))
            if action is not None and current:
                self._failed(action, happening.error)
        else:
            container.done = happening.state
            if action is not None and happening.state == ledger_pb2.CONTAINER_STATE_INITIALISING:
                action.served()
        self.books.advance(container)

    def _failed(self, action: Action, error: SlotwayError) -> None:
        action.failed(error, self._now())
        self.books.dirty.add(action.record.name)
        for other in self.books.of(action.record.name):
            if other.state == ledger_pb2.CONTAINER_STATE_CREATING and not other.begun:
                other.failed = True  # it would fail as well; it is not created for that
                self.books.advance(other)

    def _ended(self, name: str) -> None:
        container = self.books.containers.get(name)
        if container is None or container.ended:
            return
        if container.phase is Phase.COMING:
            action = self.books.actions.get(container.record.action)
            if action is not None and action.record.revision == container.record.revision:
                ended = SlotwayError("the container ended while it started", reason="CREATE_FAILED")
                self._failed(action, ended)
        log.info("container", id=name, action=container.record.action, state="ended")
        holders = self.books.end(container)
        for router in self._routers.by_id.values():
            session = router.session
            if session is not None and (router.id in holders or name in session.told):
                session.draft.ended_containers.append(name)
                session.told.discard(name)

    async def _compare(self, stock: Listed) -> None:
        for name in stock.ended:
            self._ended(name)
        for found in stock.found:
            name = found.label.id
            if name in self.books.containers:
                continue
            epoch, _, revision = found.label.term.partition(".")
            if (int(epoch), int(revision)) > self.term:
                raise DeposedError(f"container {name} is of the newer term {found.label.term}")
            turn = self._ledger.begin_empty()
            absent = Compare(self._keys.container(name), mod_revision=0)
            if await self._link(turn, [], [absent]):
                log.warning("a container that no record speaks of is ended", id=name)
                await self._starts.remove_stray(name)

    # Act, without a commit.

    def _beat(self) -> None:
        for router in self._routers.by_id.values():
            if router.session is not None:
                router.session.flush(self.term, self.turn, beat=True)
        holders = {h for c in self.books.containers for h in self._ledger.shares(c)}
        self._routers.forget(holders)

    def _flush(self) -> None:
        for router in self._routers.by_id.values():
            if router.session is not None:
                router.session.flush(self.term, self.turn)

    def _tell(self, name: str, decisions: Decisions) -> None:
        """Peers, and why waiting requests cannot be served."""
        error = self._refusal(name)
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

    def _refusal(self, name: str) -> SlotwayError | None:
        action = self.books.actions.get(name)
        if action is None:
            return SlotwayError(f"no action is named {name}", reason="ACTION_NOT_FOUND")
        if action.record.memory_mib > self.books.policy.memory_mib_max:
            return SlotwayError(
                f"a container of {name} takes {action.record.memory_mib} MiB, and the cluster has "
                f"{self.books.policy.memory_mib_max} MiB",
                reason="CLUSTER_FULL",
            )
        return action.refusal(self._now())

    # Commit, and act on it.

    async def _commit(self) -> None:
        self._send_orders()
        while (commit := self._ledger.begin(RECORDS_MAX)) is not None:
            if not await self._commit_records(commit):
                return
        writes, self._writes = self._writes, []
        for i, write in enumerate(writes):
            if not await self._commit_write(write):
                self._writes = writes[i:] + self._writes
                return

    async def _commit_records(self, commit: Commit) -> bool:
        operations: list[Put | Delete] = []
        compare = []
        for name, shares in commit.puts:
            container = self.books.containers[name]
            key = self._keys.container(name)
            operations.append(Put(key, container.value(shares)))
            compare.append(Compare(key, mod_revision=container.mod_revision))
        for name in commit.deletes:
            key = self._keys.container(name)
            operations.append(Delete(key))
            compare.append(Compare(key, mod_revision=self.books.containers[name].mod_revision))
        if not await self._link(commit, operations, compare):
            return False
        for name, _ in commit.puts:
            container = self.books.containers[name]
            container.mod_revision = self.books.revision
            self._attend(container)
        for name in commit.deletes:
            self.books.forget(name)
        return True

    async def _commit_write(self, write: Write) -> bool:
        """False: the view was replaced, and the write has to be looked at again."""
        known = self.books.actions.get(write.name)
        try:
            record = self._judge(write, known)
        except SlotwayError as exc:
            _fail(write, exc)
            return True
        if known is not None and record is not None and _same(known.record, record):
            _answer(write, known.record)
            return True
        key = self._keys.action(write.name)
        operation = Delete(key) if record is None else Put(key, encode(record))
        compare = Compare(key, mod_revision=known.mod_revision if known else 0)
        if not await self._link(self._ledger.begin_empty(), [operation], [compare]):
            return False
        if record is None:
            del self.books.actions[write.name]
        else:
            self.books.actions[write.name] = Action(record, self.books.revision)
        self.books.dirty.add(write.name)
        _answer(write, record or ledger_pb2.ActionRecord())
        return True

    def _judge(self, write: Write, known: Action | None) -> ledger_pb2.ActionRecord | None:
        """The record to be put; None: to be deleted."""
        revision = known.record.revision if known else 0
        if write.expected_revision is not None and write.expected_revision != revision:
            is_now = f"at revision {revision}" if known else "not there"
            raise SlotwayError(
                f"expected_revision: {write.name} is {is_now}, not {write.expected_revision}",
                reason="REVISION_CONFLICT",
                metadata={"revision": str(revision)},
            )
        if write.record is None:
            if known is None:
                raise SlotwayError(f"no action is named {write.name}", reason="ACTION_NOT_FOUND")
            return None
        record = ledger_pb2.ActionRecord()
        record.CopyFrom(write.record)
        if not record.code_sha256:
            if known is None:
                raise SlotwayError(
                    f"code: {write.name} is new, and has to come with its code",
                    reason="INVALID_FIELD",
                    metadata={"field": "code"},
                )
            record.code_sha256 = known.record.code_sha256
            record.code_bytes = known.record.code_bytes
        record.revision = max(revision, self.books.revision) + 1
        return record

    async def _link(
        self, commit: Commit, operations: list[Put | Delete], compare: list[Compare]
    ) -> bool:
        """One link of the chain. True: it was applied, and its orders are on their way.

        False: what became of it had to be settled, and the whole view was read anew.
        """
        outcome, revision = await self._chain.write(commit.turn, operations, compare)
        if outcome is Outcome.APPLIED:
            self.books.revision = revision
            self._ledger.committed(revision)
            self._send_orders()
            return True
        log.warning("the ledger is read anew", why=outcome.name.lower())
        self._ledger.unknown()
        records = await self._chain.fence()
        shares = self.books.adopt(records)
        self._ledger.settled(records.revision, shares)
        self.books.resume(taken_over=False)
        for container in list(self.books.containers.values()):
            self._attend(container)
        self._send_orders()
        return False

    def _send_orders(self) -> None:
        now = self._now()
        for order in self._ledger.orders():
            router = self._routers.get(order.router)
            container = self.books.containers.get(order.container)
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
        self._flush()

    def _describe(self, container: Container) -> manager_pb2.Container:
        record = container.record
        action = self.books.actions.get(record.action)
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

    def _attend(self, container: Container) -> None:
        action = self.books.actions.get(container.record.action)
        current = action is not None and action.record.revision == container.record.revision
        record = action.record if action is not None and current else None
        self._starts.attend(container, record, self.books.label(container))


def _same(one: ledger_pb2.ActionRecord, other: ledger_pb2.ActionRecord) -> bool:
    """Whether a write would change nothing that matters."""
    copy = ledger_pb2.ActionRecord()
    copy.CopyFrom(one)
    copy.revision, copy.updated_at_ms = other.revision, other.updated_at_ms
    return copy == other


def _answer(write: Write, record: ledger_pb2.ActionRecord) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):  # its caller has left
        write.done.set_result(record)


def _fail(write: Write, error: SlotwayError) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):
        write.done.set_exception(error)
