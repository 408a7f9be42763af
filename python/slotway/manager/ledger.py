"""The ledger's own record: which epoch it is in, and which etcd it was begun in.

An etcd that was wiped or restored may have forgotten what was granted. Its ledger is not led until
`slotway cluster recover` has begun a new epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from slotway.errors import SlotwayError
from slotway.etcd import Access, Client, Compare, Delete, Get, Put
from slotway.records import Keys, decode, encode
from slotway.v1.ledger_pb2 import ContainerRecord, LedgerRecord

log = structlog.get_logger(__name__)

FIRST_EPOCH = 1
RECOVER = (
    "what it says about containers may be out of date: run `slotway cluster recover`, which begins "
    "a new epoch and ends the containers of the old one"
)


class LedgerRefusedError(SlotwayError):
    """This ledger must not be led as it is."""

    reason = "EPOCH_MISMATCH"


class ForgottenError(SlotwayError):
    """etcd has forgotten grants: it was wiped or restored. Nothing may be served from it."""

    reason = "EPOCH_MISMATCH"


@dataclass(frozen=True, slots=True)
class LedgerSeen:
    """The ledger's record, and the revision at which it was put."""

    record: LedgerRecord
    revision: int


async def read_ledger(client: Client, keys: Keys) -> LedgerSeen:
    """Reads the ledger's record; begins the ledger if the cluster is new.

    Raises LedgerRefusedError if it belongs to another etcd, UnknownSchemaError or RecordError if it
    cannot be understood, and what `Client.txn` raises.
    """
    while True:
        item, _ = await client.get(keys.ledger)
        if item is not None:
            record = decode(LedgerRecord, item.key, item.value)
            if record.etcd_cluster_id != client.cluster_id:
                raise LedgerRefusedError(
                    f"the ledger of cluster {keys.cluster!r} was begun in etcd cluster "
                    f"{record.etcd_cluster_id}, but this is etcd cluster {client.cluster_id}: "
                    + RECOVER
                )
            return LedgerSeen(record, item.mod_revision)
        await _begin(client, keys)


async def begin_epoch(access: Access, cluster: str, above: int) -> int:
    """`recover` in this etcd; raises EtcdError if that fails."""
    async with Client(access) as client:
        return await recover(client, Keys(cluster), above)


async def recover(client: Client, keys: Keys, above: int = 0) -> int:
    """Begins a new epoch, greater than all that etcd knows of and than `above`, and deposes whoever
    leads; returns it. The next leader ends every container of the older ones before it serves.

    Raises RecordError if what is there cannot be understood, and what `Client.txn` raises; after
    OutcomeUnknown it can be repeated.
    """
    while True:
        item, _ = await client.get(keys.ledger)
        known = [FIRST_EPOCH, above]
        if item is not None:
            known.append(decode(LedgerRecord, item.key, item.value).epoch)
        found = (await client.list(keys.containers)).items
        known += [term_of(decode(ContainerRecord, one.key, one.value).term)[0] for one in found]
        record = LedgerRecord(
            epoch=max(known) + 1, etcd_cluster_id=client.cluster_id, recovering=True
        )
        unchanged = Compare(keys.ledger, mod_revision=item.mod_revision if item else 0)
        put, depose = Put(keys.ledger, encode(record)), Delete(keys.leader)
        if (await client.txn([unchanged], [put, depose])).succeeded:
            log.info("a new epoch", cluster=keys.cluster, epoch=record.epoch)
            return record.epoch


def term_of(term: str) -> tuple[int, int]:
    """A recorded term, "epoch.revision"; one that cannot be read is older than any."""
    epoch, _, revision = term.partition(".")
    try:
        return int(epoch), int(revision)
    except ValueError:
        return 0, 0


async def _begin(client: Client, keys: Keys) -> None:
    record = LedgerRecord(epoch=FIRST_EPOCH, etcd_cluster_id=client.cluster_id)
    absent = Compare(keys.ledger, mod_revision=0)
    orphans = (await client.txn([absent], [Get(keys.containers, prefix=True)])).found
    if orphans and orphans[0]:
        raise LedgerRefusedError(
            f"etcd has containers of cluster {keys.cluster!r}, but not its ledger's record: "
            + RECOVER
        )
    if (await client.txn([absent], [Put(keys.ledger, encode(record))])).succeeded:
        log.info("a new ledger", cluster=keys.cluster, epoch=FIRST_EPOCH)
