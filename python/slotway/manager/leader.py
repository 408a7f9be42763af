"""Leadership: one fixed key, taken by comparing the revision that was seen there.

The revision of the put, behind the ledger's epoch, is the term. Whoever finds its own incarnation
on the key at a revision that it has not led yet is the leader of that revision, once; the key's
change ends the term. No lease and no keepalive is believed: the key itself is watched, and read by
transactions. Being wrong costs a handover, never safety: every commit compares the key's revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
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
from slotway.manager.ledger import LedgerSeen, read_ledger
from slotway.manager.replica import Replica
from slotway.manager.standby import Standby
from slotway.manager.succession import Lead
from slotway.records import Keys, decode, encode
from slotway.v1.ledger_pb2 import LeaderRecord
from slotway.v1.standby_pb2 import FollowRequest

log = structlog.get_logger(__name__)

Term = tuple[int, int]
"""The ledger's epoch, and the revision at which the leader key was put."""


@dataclass(slots=True)
class Reign:
    """One term of this Manager's."""

    term: Term
    replica: Replica
    """The ledger, to be taken from."""
    ledger: LedgerSeen
    """The ledger's own record."""
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""
    """Why it ended."""
    served: bool = False
    """Whether the takeover came to its end."""

    def end(self, why: str) -> None:
        """The term is over: nothing new may be sent."""
        if not self.lost.is_set():
            self.why = why
            self.lost.set()
            log.warning("not leader any more", term=self.term, why=why)


class Leadership:
    """One Manager's way to the leader key, for as long as its process lives."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        record: LeaderRecord,
        ttl_s: int,
        *,
        period_s: float = 0.1,
        ask: Callable[[], int] = lambda: 0,
        heir: Callable[[], FollowRequest | None] = lambda: None,
    ):
        """`record` is what is put on the key; its incarnation is made at the process's start.

        For `ask` see `Standby`; `heir` tells which standby the key can be handed over to.
        """
        self.standby = Standby(client, keys, record, period_s, ask)
        self._client, self._keys, self._ttl_s = client, keys, ttl_s
        self._record, self._heir = record, heir

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
                if reign.served:
                    self.standby.served()
                lost = reign.lost.is_set()
                reign.lost.set()
                watching.cancel()
                checking.cancel()
                try:
                    if not lost:
                        await self._resign(reign.term)
                finally:
                    await asyncio.wait({watching, checking})

    @asynccontextmanager
    async def _won(self) -> AsyncIterator[Reign]:
        patience = Patience("to become leader")
        while True:
            try:
                ledger = await read_ledger(self._client, self._keys)
                lease = Lease(self._client, self._ttl_s)
                await lease.__aenter__()
            except LATER as exc:
                await patience.wait(exc)
                continue
            try:
                async with self.standby.copying() as copying:
                    revision = await self._win(ledger.revision, copying, lease)
                    if revision:
                        patience.over()
                        self.standby.succession.led = revision
                        term = (ledger.record.epoch, revision)
                        yield Reign(term, self.standby.replica, ledger)
                        return
            finally:
                await lease.__aexit__(None, None, None)

    async def _win(self, ledger_revision: int, copying: asyncio.Task[None], lease: Lease) -> int:
        """Waits for the key's turn, and takes it; returns its revision, 0 if the lease is lost, or
        the ledger was changed."""
        patience = Patience("to take the leader key")
        while True:
            command = await self.standby.turn_comes(copying, lease)
            if command is None:
                return 0
            log.info("the leader key's turn", why=self.standby.succession.why)
            try:
                if isinstance(command, Lead):
                    same = await self._same_ledger(ledger_revision)
                    return command.revision if same else 0
                won = await self._take(command.revision, ledger_revision, lease)
                if won or not await self._same_ledger(ledger_revision):
                    return won
            except LeaseGone:
                return 0
            except LATER as exc:
                # A lost put may be applied yet: what is on the key tells.
                await patience.wait(exc)
            self.standby.failed()

    async def _same_ledger(self, revision: int) -> bool:
        """Whether the ledger's own record is still the one that was read."""
        ledger, _ = await self._client.get(self._keys.ledger)
        return ledger is not None and ledger.mod_revision == revision

    async def _take(self, seen: int, ledger_revision: int, lease: Lease) -> int:
        """Puts the key; returns its revision, 0 if another was quicker or the ledger changed.

        Raises LeaseGone, and what is worth trying again later.
        """
        result = await self._client.txn(
            [
                Compare(self._keys.leader, mod_revision=seen),
                Compare(self._keys.ledger, mod_revision=ledger_revision),
            ],
            [Put(self._keys.leader, encode(self._record), lease.id)],
        )
        return result.revision if result.succeeded else 0

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
        """Hands the key over to a standby that is ready, with that standby's lease, or deletes it,
        if it is still this term's; else the lease lets it go."""
        guard = Compare(self._keys.leader, mod_revision=term[1])
        heir = self._heir()
        if heir is not None:
            record = LeaderRecord(id=heir.manager, address=heir.address)
            record.incarnation = heir.incarnation
            put = Put(self._keys.leader, encode(record), heir.lease)
            try:
                if (await self._client.txn([guard], [put])).succeeded:
                    log.info("handed over", to=heir.manager, address=heir.address)
                return
            except EtcdError as exc:
                log.warning("could not hand over", to=heir.manager, why=str(exc))
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
