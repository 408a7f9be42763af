"""Which Managers run: each keeps a key with a lease of its own, and Routers follow the list.

The list is for finding them only; nothing is decided by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

import structlog

from slotway.config import split_address
from slotway.errors import SlotwayError
from slotway.etcd import Client, Compare, KeyValue, Lease, LeaseGone, Put, View
from slotway.etcd.patience import LATER, Patience
from slotway.records import Keys, RecordError, decode, encode
from slotway.v1.ledger_pb2 import MemberRecord

log = structlog.get_logger(__name__)

PROBE_S = 0.5


class NameTakenError(SlotwayError):
    """Another live process uses the same configured name."""

    reason = "NAME_TAKEN"


async def refuses(address: str) -> bool:
    """Whether the host of "host:port" is up and nobody listens there: surely no live server."""
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(*split_address(address))
    except ConnectionRefusedError:
        return True
    except (OSError, ValueError):
        return False
    writer.close()
    return False


async def register(client: Client, keys: Keys, member: MemberRecord, ttl_s: int) -> None:
    """Keeps the member's key for as long as this runs; cancel it to leave the list.

    The key is put again whenever it was lost. Raises NameTakenError if another process that still
    listens has the same id, and EtcdError if etcd refuses.
    """
    key, patience = keys.member(member.id), Patience("to register this Manager")
    while True:
        try:
            async with Lease(client, ttl_s) as lease:
                while not lease.lost.is_set():
                    await _put(client, key, member, lease.id)
                    patience.over()
                    try:
                        async with asyncio.timeout(ttl_s):
                            await lease.lost.wait()
                    except TimeoutError:
                        continue
        except LeaseGone:
            continue
        except LATER as exc:
            await patience.wait(exc)


async def _put(client: Client, key: str, member: MemberRecord, lease: int) -> None:
    """Puts the key unless it is as it should be."""
    value = encode(member)
    item, _ = await client.get(key)
    if item is not None and (item.value, item.lease) == (value, lease):
        return
    if item is not None:
        await _may_replace(key, item.value, member)
    seen = item.mod_revision if item is not None else 0
    result = await client.txn([Compare(key, mod_revision=seen)], [Put(key, value, lease)])
    if result.succeeded:
        log.info("registered as a Manager", id=member.id, address=member.address)


async def _may_replace(key: str, value: bytes, member: MemberRecord) -> None:
    try:
        there = decode(MemberRecord, key, value)
    except RecordError as exc:
        log.warning("a member's record is replaced", why=str(exc))
        return
    if there.incarnation != member.incarnation and there.address != member.address:
        if await refuses(there.address):
            return
        raise NameTakenError(
            f"a Manager with the id {member.id!r} is registered at {there.address} and may be "
            "alive: give each Manager of a cluster an id of its own, or try again when it has ended"
        )


async def managers(client: Client, keys: Keys) -> AsyncGenerator[dict[str, str], None]:
    """The addresses of all Managers by their ids: at once, and again whenever they change.

    While etcd is away nothing is told: the last list stays good. Close it with `aclosing`.
    """
    view = View(client, keys.members)
    known: dict[str, str] | None = None
    async with aclosing(view.follow()) as changes:
        async for _ in changes:
            listed = _addresses(view.items.values())
            if listed != known:
                known = listed
                yield listed


async def managers_now(client: Client, keys: Keys) -> dict[str, str]:
    """The addresses of all Managers by their ids, read once."""
    return _addresses((await client.list(keys.members)).items)


def _addresses(items: Iterable[KeyValue]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in items:
        try:
            record = decode(MemberRecord, item.key, item.value)
        except RecordError as exc:
            log.warning("a member's record cannot be read", why=str(exc))
        else:
            found[record.id] = record.address
    return found
