"""Leadership: one fixed key, taken by comparing the revision that was seen there.

The revision of the put, behind the ledger's epoch, is the term. Whoever finds its own incarnation
on the key at a revision that it has not led yet is the leader of that revision, once; the key's
change ends the term. No lease and no keepalive is believed: the key itself is watched, and read by
transactions. Being wrong costs a handover, never safety: every commit compares the key's revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import structlog

from slotway.etcd import (
    Client,
    Compacted,
    Compare,
    Delete,
    EtcdError,
    EtcdUnavailable,
    KeyValue,
    Lease,
    LeaseGone,
    Put,
)
from slotway.etcd.patience import LATER, Patience
from slotway.manager.ledger import read_ledger
from slotway.members import refuses
from slotway.records import Keys, decode, encode
from slotway.v1.ledger_pb2 import LeaderRecord

log = structlog.get_logger(__name__)

Term = tuple[int, int]
"""The ledger's epoch, and the revision at which the leader key was put."""

POLL_S = 0.2
"""How often the key of another leader is looked at."""
YOUNG_S = 2.0
"""A key that has been seen for less than this is left alone although its leader seems dead."""


@dataclass(slots=True)
class Reign:
    """One term of this Manager's."""

    term: Term
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""
    """Why it ended."""

    def end(self, why: str) -> None:
        """The term is over: nothing new may be sent."""
        if not self.lost.is_set():
            self.why = why
            self.lost.set()
            log.warning("not leader any more", term=self.term, why=why)


@dataclass(frozen=True, slots=True)
class Take:
    """Put the key, comparing this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Lead:
    """The key is one's own: lead its revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Another one leads."""


def decide(
    seen: tuple[int, str] | None,
    incarnation: str,
    led: int,
    seen_for_s: float,
    refused: int,
) -> Take | Lead | Wait:
    """What to do about the leader key.

    `seen` is its revision and the incarnation on it, None if it is absent; `led` the newest
    revision that this incarnation has led; `seen_for_s` how long the key has been like this;
    `refused` how many of the last connections to its leader were refused, one after the other.
    """
    if seen is None:
        return Take(0)
    revision, holder = seen
    if holder == incarnation:
        return Lead(revision) if revision > led else Take(revision)
    if refused >= 2 and seen_for_s >= YOUNG_S:
        return Take(revision)
    return Wait()


class Leadership:
    """One Manager's way to the leader key, for as long as its process lives."""

    def __init__(self, client: Client, keys: Keys, record: LeaderRecord, ttl_s: int):
        """`record` is what is put on the key; its incarnation is made at the process's start."""
        self._client, self._keys, self._ttl_s = client, keys, ttl_s
        self._record = record
        self._led = 0
        self._seen: tuple[int, str] | None = None
        self._seen_since = 0.0
        self._refused = 0

    @asynccontextmanager
    async def reign(self) -> AsyncIterator[Reign]:
        """Waits until this Manager leads, and resigns at the end.

        The body has to stop when `lost` is set. Raises LedgerRefusedError, UnknownSchemaError and
        RecordError if this ledger must not be led, and EtcdError if etcd refuses.
        """
        async with self._won() as reign:
            log.info("leader", term=reign.term)
            watching = asyncio.create_task(self._watch(reign), name="leader-watch")
            checking = asyncio.create_task(self._check(reign), name="leader-check")
            try:
                yield reign
            finally:
                reign.lost.set()
                watching.cancel()
                checking.cancel()
                await asyncio.wait({watching, checking})
                await self._resign(reign.term)

    async def leader(self) -> LeaderRecord | None:
        """Who leads now, if anybody."""
        item, _ = await self._client.get(self._keys.leader)
        return decode(LeaderRecord, item.key, item.value) if item is not None else None

    @asynccontextmanager
    async def _won(self) -> AsyncIterator[Reign]:
        patience = Patience("to become leader")
        while True:
            try:
                ledger = await read_ledger(self._client, self._keys)
                await self._turn_comes()
                lease = Lease(self._client, self._ttl_s)
                await lease.__aenter__()
            except LATER as exc:
                await patience.wait(exc)
                continue
            try:
                revision = await self._take(ledger.revision, lease)
                if revision:
                    patience.over()
                    yield Reign((ledger.record.epoch, revision))
                    return
            finally:
                await lease.__aexit__(None, None, None)

    async def _turn_comes(self) -> None:
        """Returns when the key may be taken."""
        waiting = False
        while isinstance(self._decide(await self._look()), Wait):
            assert self._seen is not None
            if not waiting:
                waiting = True
                log.info("another Manager leads", revision=self._seen[0])
            await asyncio.sleep(POLL_S)

    async def _take(self, ledger_revision: int, lease: Lease) -> int:
        """Puts the key; returns its revision, 0 if another was quicker or the ledger changed."""
        patience = Patience("to take the leader key")
        while not lease.lost.is_set():
            try:
                match self._decide(await self._look(probe=False)):
                    case Lead(revision):
                        self._led = revision
                        return revision
                    case Take(seen):
                        result = await self._client.txn(
                            [
                                Compare(self._keys.leader, mod_revision=seen),
                                Compare(self._keys.ledger, mod_revision=ledger_revision),
                            ],
                            [Put(self._keys.leader, encode(self._record), lease.id)],
                        )
                        if not result.succeeded:
                            return 0
                        self._led = result.revision
                        return result.revision
                    case Wait():
                        return 0
            except LATER as exc:
                # A lost put may be applied yet: the next look, or the comparison of the next put,
                # finds out.
                await patience.wait(exc)
            except LeaseGone:
                return 0
        return 0

    async def _look(self, *, probe: bool = True) -> tuple[int, str] | None:
        """The key as it is now."""
        item, _ = await self._client.get(self._keys.leader)
        now = asyncio.get_running_loop().time()
        record = decode(LeaderRecord, item.key, item.value) if item is not None else None
        seen = (item.mod_revision, record.incarnation) if item and record else None
        if seen != self._seen:
            self._seen, self._seen_since, self._refused = seen, now, 0
        if probe and record is not None and record.incarnation != self._record.incarnation:
            # Who listens at the address of the key has its port: the other one is dead.
            dead = record.address == self._record.address or await refuses(record.address)
            self._refused = self._refused + 1 if dead else 0
        return seen

    def _decide(self, seen: tuple[int, str] | None) -> Take | Lead | Wait:
        seen_for_s = asyncio.get_running_loop().time() - self._seen_since
        return decide(seen, self._record.incarnation, self._led, seen_for_s, self._refused)

    async def _watch(self, reign: Reign) -> None:
        """Ends the reign as soon as the key changes."""
        start = reign.term[1] + 1
        while True:
            try:
                async with self._client.watch(self._keys.leader, start, prefix=False) as watch:
                    async for batch in watch:
                        if batch.events:
                            reign.end(_told(batch.events[-1].item, batch.events[-1].deleted))
                            return
            except Compacted as exc:
                # The key may have changed in what is gone: `_check` sees it.
                start = max(start, exc.revision)
            except EtcdError as exc:
                reign.end(str(exc))
                return

    async def _check(self, reign: Reign) -> None:
        """Reads the key by transactions: a watch may be late, and a keepalive proves nothing."""
        while not reign.lost.is_set():
            await asyncio.sleep(self._ttl_s / 3)
            try:
                guard = Compare(self._keys.leader, mod_revision=reign.term[1])
                if not (await self._client.txn([guard])).succeeded:
                    reign.end("the leader key is not this term's any more")
            except EtcdUnavailable:
                pass  # nobody can commit now; whoever leads is found out when etcd is back
            except EtcdError as exc:
                reign.end(str(exc))

    async def _resign(self, term: Term) -> None:
        """Deletes the key if it is still this term's; else the lease lets it go."""
        guard = Compare(self._keys.leader, mod_revision=term[1])
        with suppress(EtcdError):
            await self._client.txn([guard], [Delete(self._keys.leader)])


def _told(item: KeyValue, deleted: bool) -> str:
    if deleted:
        return "the leader key was deleted, or its lease has ended"
    try:
        record = decode(LeaderRecord, item.key, item.value)
    except Exception as exc:
        return f"the leader key was overwritten: {exc}"
    return f"Manager {record.id!r} at {record.address} took the leader key"
