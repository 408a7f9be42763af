"""The client of an etcd cluster: transactions, listings, leases and watches."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from slotway.etcd import rpc_pb2
from slotway.etcd.connection import Connection
from slotway.etcd.errors import Compacted, EtcdError, LeaseGone
from slotway.etcd.model import (
    Access,
    Compare,
    Delete,
    Get,
    KeyValue,
    Listing,
    Operation,
    Put,
    TxnResult,
    range_end,
)
from slotway.etcd.watch import Watch
from slotway.etcd.wire import item_of, key_bytes

PAGE = 1000
"""Keys in one page of a listing."""
LISTING_ATTEMPTS = 5
"""How often a listing begins anew because its revision was compacted meanwhile."""


class Client:
    """One etcd cluster. Use it as an async context manager, in one event loop.

    Every call has the deadline of `Access.timeout_s` unless another is given, and raises EtcdError
    (etcd refused it), EtcdUnavailable (nobody answered) or WrongCluster; calls that write may raise
    OutcomeUnknown. Cancelling a call that writes leaves its outcome unknown, too.
    """

    def __init__(self, access: Access):
        """Raises ValueError for a bad endpoint, OSError for a PEM file that cannot be read."""
        self._connection = Connection(access)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connection.close()

    @property
    def cluster_id(self) -> str:
        """The cluster that answered, in lower-case hexadecimal; empty before the first answer."""
        return f"{self._connection.cluster_id:x}" if self._connection.cluster_id else ""

    async def status(self, timeout_s: float = 0) -> str:
        """The version of the member that answers."""
        answer = await self._connection.call(
            lambda member: member.maintenance.Status,
            rpc_pb2.StatusRequest(),
            repeat=True,
            timeout_s=timeout_s,
        )
        return answer.version

    async def txn(
        self,
        compare: Sequence[Compare] = (),
        success: Sequence[Operation] = (),
        failure: Sequence[Operation] = (),
        timeout_s: float = 0,
    ) -> TxnResult:
        """If all comparisons hold, does `success`, else `failure`; at most 128 of each.

        Without any Put or Delete it is repeated until answered, and has no unknown outcome.
        """
        answer = await self._connection.call(
            lambda member: member.kv.Txn,
            rpc_pb2.TxnRequest(
                compare=map(_compare, compare),
                success=map(_operation, success),
                failure=map(_operation, failure),
            ),
            repeat=all(isinstance(one, Get) for one in (*success, *failure)),
            timeout_s=timeout_s,
        )
        return TxnResult(
            succeeded=answer.succeeded,
            revision=answer.header.revision,
            found=tuple(tuple(map(item_of, one.response_range.kvs)) for one in answer.responses),
        )

    async def get(self, key: str) -> tuple[KeyValue | None, int]:
        """The key, and the revision at which it was so."""
        answer = await self._range(rpc_pb2.RangeRequest(key=key_bytes(key)))
        return (item_of(answer.kvs[0]) if answer.kvs else None), answer.header.revision

    async def list(self, prefix: str, page: int = PAGE) -> Listing:
        """All keys that begin with `prefix`, read in pages at one revision.

        Raises Compacted if the revision was compacted during each of several attempts.
        """
        for _ in range(LISTING_ATTEMPTS - 1):
            try:
                return await self._list(prefix, page)
            except Compacted:
                continue
        return await self._list(prefix, page)

    async def _list(self, prefix: str, page: int) -> Listing:
        start, end = key_bytes(prefix), range_end(key_bytes(prefix))
        items: list[KeyValue] = []
        revision = 0
        while True:
            answer = await self._range(
                rpc_pb2.RangeRequest(key=start, range_end=end, limit=page, revision=revision)
            )
            revision = revision or answer.header.revision
            items.extend(map(item_of, answer.kvs))
            if not answer.more:
                return Listing(revision, tuple(items))
            start = answer.kvs[-1].key + b"\0"

    async def _range(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        return await self._connection.call(lambda member: member.kv.Range, request, repeat=True)

    async def compact(self, revision: int) -> None:
        """Forgets the history before `revision`."""
        with contextlib.suppress(Compacted):
            await self._connection.call(
                lambda member: member.kv.Compact,
                rpc_pb2.CompactionRequest(revision=revision, physical=True),
                repeat=True,
            )

    def watch(self, key: str, start: int, *, prefix: bool = True) -> Watch:
        """Watches all keys that begin with `key` (or just it) from the revision `start` on."""
        return Watch(self._connection, key, start, prefix=prefix)

    async def grant(self, ttl_s: int) -> int:
        """A new lease; returns its id. etcd expires it after `ttl_s` at least without a beat."""
        # The id is ours, so that a repeated request cannot leave a second lease behind.
        lease = random.SystemRandom().randrange(1, 2**63)
        try:
            await self._connection.call(
                lambda member: member.lease.LeaseGrant,
                rpc_pb2.LeaseGrantRequest(TTL=ttl_s, ID=lease),
                repeat=True,
            )
        except EtcdError as exc:
            if not str(exc).endswith("etcdserver: lease already exists"):
                raise
        return lease

    async def keep_alive(self, lease: int) -> int:
        """One beat; returns the seconds that the lease has from now on, 0 if it is gone."""
        answer = await self._connection.call(
            lambda member: member.keep_alive, rpc_pb2.LeaseKeepAliveRequest(ID=lease), repeat=True
        )
        return max(0, answer.TTL)

    async def revoke(self, lease: int) -> None:
        """Ends a lease and deletes its keys; one that is gone is fine."""
        with contextlib.suppress(LeaseGone):
            await self._connection.call(
                lambda member: member.lease.LeaseRevoke,
                rpc_pb2.LeaseRevokeRequest(ID=lease),
                repeat=True,
            )


def _compare(one: Compare) -> rpc_pb2.Compare:
    compare = rpc_pb2.Compare(key=key_bytes(one.key), result=rpc_pb2.Compare.EQUAL)
    if one.mod_revision is not None:
        compare.target, compare.mod_revision = rpc_pb2.Compare.MOD, one.mod_revision
    elif one.create_revision is not None:
        compare.target, compare.create_revision = rpc_pb2.Compare.CREATE, one.create_revision
    elif one.version is not None:
        compare.target, compare.version = rpc_pb2.Compare.VERSION, one.version
    else:
        assert one.value is not None
        compare.target, compare.value = rpc_pb2.Compare.VALUE, one.value
    return compare


def _operation(one: Operation) -> rpc_pb2.RequestOp:
    key = key_bytes(one.key)
    match one:
        case Put(value=value, lease=lease):
            return rpc_pb2.RequestOp(
                request_put=rpc_pb2.PutRequest(key=key, value=value, lease=lease)
            )
        case Delete(prefix=prefix):
            end = range_end(key) if prefix else b""
            return rpc_pb2.RequestOp(
                request_delete_range=rpc_pb2.DeleteRangeRequest(key=key, range_end=end)
            )
        case Get(prefix=prefix):
            end = range_end(key) if prefix else b""
            return rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key, range_end=end))
