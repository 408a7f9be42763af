"""The leader's commits: what is staged becomes true here, and only then is acted upon."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from slotway._slotcore import Commit
from slotway.errors import SlotwayError
from slotway.etcd import Compare, Delete, Put
from slotway.manager.action import Action
from slotway.manager.books import Books
from slotway.manager.chain import Chain, Outcome
from slotway.manager.container import Container
from slotway.manager.inbox import Write
from slotway.manager.ledger import LedgerSeen
from slotway.manager.messages import Messages
from slotway.manager.starts import Starts
from slotway.records import SCHEMA, Keys, encode
from slotway.v1 import ledger_pb2

log = structlog.get_logger(__name__)

RECORDS_MAX = 126
"""Records in one transaction: etcd takes 128 comparisons, two of them are of leader and turn."""


class Commits:
    """Writes what the books have staged, then the actions' records that callers asked for.

    Every method raises DeposedError if another Manager leads.
    """

    def __init__(
        self, chain: Chain, keys: Keys, books: Books, messages: Messages, starts: Starts
    ) -> None:
        self._chain, self._keys, self._books = chain, keys, books
        self._messages, self._starts, self._ledger = messages, starts, books.ledger
        self._writes: list[Write] = []
        self._tried: tuple[Write, ledger_pb2.ActionRecord | None] | None = None
        """The write whose outcome was not known, and what it was to put."""

    @property
    def waiting(self) -> bool:
        """Whether a write of an action's record waits."""
        return bool(self._writes)

    def add(self, write: Write) -> None:
        """Has the write done with the next commit."""
        self._writes.append(write)

    def give_up(self, error: SlotwayError) -> None:
        """Tells the callers whose writes still wait that they will not be done."""
        for write in self._writes:
            _fail(write, error)
        self._writes.clear()

    async def run(self) -> None:
        """Commits everything; stops early if the view had to be read anew."""
        self._messages.orders()
        while (commit := self._ledger.begin(RECORDS_MAX)) is not None:
            if not await self._commit_records(commit):
                return
        while self._writes:
            if not await self._commit_write(self._writes[0]):
                return
            del self._writes[0]

    async def _commit_records(self, commit: Commit) -> bool:
        operations: list[Put | Delete] = []
        compare = []
        for name, shares in commit.puts:
            container = self._books.containers[name]
            key = self._keys.container(name)
            operations.append(Put(key, container.value(shares)))
            compare.append(Compare(key, mod_revision=container.mod_revision))
        for name in commit.deletes:
            key = self._keys.container(name)
            operations.append(Delete(key))
            compare.append(Compare(key, mod_revision=self._books.containers[name].mod_revision))
        # Whatever this commit records has an address up to this count.
        count = self._books.addresses.unwritten() if commit.puts else None
        if not await self._link(commit, [*operations, *([count] if count else [])], compare):
            return False
        if count is not None:
            self._books.addresses.written()
        for name, _ in commit.puts:
            container = self._books.containers[name]
            container.mod_revision = self._books.revision
            self._attend(container)
        for name in commit.deletes:
            self._books.forget(name)
        return True

    async def _commit_write(self, write: Write) -> bool:
        """False: the view was replaced, and the write has to be looked at again."""
        known = self._books.actions.get(write.name)
        if self._tried is not None and self._tried[0] is write:
            tried, self._tried = self._tried[1], None
            if tried == (known.record if known else None):  # it was applied, but not answered
                _answer(write, tried or ledger_pb2.ActionRecord())
                return True
        try:
            record = _judge(write, known, self._books.revision)
        except SlotwayError as exc:
            _fail(write, exc)
            return True
        if known is not None and record is not None and _same(known.record, record):
            _answer(write, known.record)
            return True
        key = self._keys.action(write.name)
        operation = Delete(key) if record is None else Put(key, encode(record))
        compare = Compare(key, mod_revision=known.mod_revision if known else 0)
        self._tried = (write, record)
        if not await self._link(self._ledger.begin_empty(), [operation], [compare]):
            return False
        self._tried = None
        if record is None:
            del self._books.actions[write.name]
        else:
            self._books.actions[write.name] = Action(record, self._books.revision)
        self._books.dirty.add(write.name)
        _answer(write, record or ledger_pb2.ActionRecord())
        return True

    async def absent(self, container: str) -> bool:
        """Whether it is sure, by a link of the chain, that no record speaks of the container."""
        compare = Compare(self._keys.container(container), mod_revision=0)
        return await self._link(self._ledger.begin_empty(), [], [compare])

    async def recovered(self, seen: LedgerSeen) -> bool:
        """Writes down that nothing of older epochs is left; False: it has to be looked at anew."""
        record = ledger_pb2.LedgerRecord()
        record.CopyFrom(seen.record)
        record.recovering = False
        put = Put(self._keys.ledger, encode(record))
        compare = Compare(self._keys.ledger, mod_revision=seen.revision)
        return await self._link(self._ledger.begin_empty(), [put], [compare])

    async def _link(
        self, commit: Commit, operations: list[Put | Delete], compare: list[Compare]
    ) -> bool:
        """One link of the chain. True: it was applied, and its orders are on their way.

        False: what became of it had to be settled, and the whole view was read anew.
        """
        outcome, revision = await self._chain.write(commit.turn, operations, compare)
        if outcome is Outcome.APPLIED:
            self._books.revision = revision
            self._ledger.committed(revision)
            self._messages.orders()
            return True
        log.warning("the ledger is read anew", why=outcome.name.lower())
        self._ledger.unknown()
        records = await self._chain.fence()
        shares = self._books.adopt(records)
        self._ledger.settled(records.revision, shares)
        self.attend_all()
        self._books.resume()
        self._messages.orders()
        return False

    def attend_all(self) -> None:
        """Begins, for every container, what its state asks for: only while nothing is staged."""
        for container in list(self._books.containers.values()):
            self._attend(container)

    def _attend(self, container: Container) -> None:
        action = self._books.actions.get(container.record.action)
        current = action is not None and action.record.revision == container.record.revision
        record = action.record if action is not None and current else None
        ledger = self._books.addresses.ledger
        self._starts.attend(container, record, self._books.label(container), ledger)


def _judge(write: Write, known: Action | None, newest: int) -> ledger_pb2.ActionRecord | None:
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
    if not record.code_sha256 and known is not None:
        record.code_sha256 = known.record.code_sha256
        record.code_bytes = known.record.code_bytes
    if not record.code_sha256 and not record.image:
        raise SlotwayError(
            f"code: {write.name} has none, and has to come with its code",
            reason="INVALID_FIELD",
            metadata={"field": "code"},
        )
    record.schema = SCHEMA
    record.revision = max(revision, newest) + 1
    return record


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
