"""etcd's store in memory: keys with their history, transactions, leases, compaction.

Pure: the time is an argument. One transaction makes one revision at most, and its events are told
together. See etcd's `server/storage/mvcc` and `server/lease`.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import grpc

from slotway.etcd import rpc_pb2 as pb

OPERATIONS_MAX = 128


class Refused(Exception):  # noqa: N818
    """etcd's own error; nothing was applied."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, f"etcdserver: {text}"


def compacted() -> Refused:
    """A revision that is gone."""
    return Refused(grpc.StatusCode.OUT_OF_RANGE, "mvcc: required revision has been compacted")


def no_lease() -> Refused:
    """A lease that is gone."""
    return Refused(grpc.StatusCode.NOT_FOUND, "requested lease not found")


@dataclass
class Lease:
    """Ends at `ends_at`, unless a beat comes before."""

    ttl_s: int
    ends_at: float
    keys: set[bytes] = field(default_factory=set)


@dataclass(frozen=True)
class Revision:
    """What changed at one revision."""

    number: int
    events: tuple[pb.Event, ...]


class Store:
    """See the module. `on_revision` is called after each one."""

    def __init__(self, cluster_id: int) -> None:
        self.cluster_id = cluster_id
        self.revision = 1
        self.compacted = 0
        self.leases: dict[int, Lease] = {}
        self.log: list[Revision] = []
        """Everything since the compaction."""
        self.on_revision: list[Callable[[Revision], None]] = []
        self._history: dict[bytes, list[pb.KeyValue]] = {}
        """Per key, oldest first; version 0: a deletion."""
        self._names: list[bytes] = []
        self._events: list[pb.Event] = []

    @property
    def header(self) -> pb.ResponseHeader:
        """As of now."""
        return pb.ResponseHeader(cluster_id=self.cluster_id, revision=self.revision)

    # Reading.

    def _names_in(self, key: bytes, end: bytes) -> Iterable[bytes]:
        if not end:
            return [key] if key in self._history else []
        first = bisect.bisect_left(self._names, key)
        last = len(self._names) if end == b"\0" else bisect.bisect_left(self._names, end)
        return self._names[first:last]

    def at(self, key: bytes, revision: int = 0) -> pb.KeyValue | None:
        """The key as it was at a revision; 0: as it is."""
        history = self._history.get(key)
        if not history:
            return None
        place = len(history)
        if revision:
            place = bisect.bisect_right(history, revision, key=lambda kv: kv.mod_revision)
        if place == 0 or history[place - 1].version == 0:
            return None
        return history[place - 1]

    def range(self, request: pb.RangeRequest) -> pb.RangeResponse:
        """Raises Refused."""
        if request.revision and request.revision < self.compacted:
            raise compacted()
        found = [
            item
            for name in self._names_in(request.key, request.range_end)
            if (item := self.at(name, request.revision)) is not None
        ]
        answer = pb.RangeResponse(header=self.header, count=len(found))
        if not request.count_only:
            page = found[: request.limit] if request.limit else found
            answer.kvs.extend(page)
            answer.more = len(page) < len(found)
        return answer

    # Writing.

    def txn(self, request: pb.TxnRequest) -> pb.TxnResponse:
        """Raises Refused."""
        for branch in (request.success, request.failure):
            _check(branch)
        if len(request.compare) > OPERATIONS_MAX:
            raise _too_many()
        succeeded = all(self._holds(one) for one in request.compare)
        branch = request.success if succeeded else request.failure
        for one in branch:
            lease = one.request_put.lease if one.HasField("request_put") else 0
            if lease and lease not in self.leases:
                raise no_lease()
        answer = pb.TxnResponse(succeeded=succeeded)
        before = self.revision
        if any(not one.HasField("request_range") for one in branch):
            self.revision += 1  # what is read after a write sees it
        for one in branch:
            answer.responses.append(self._do(one))
        if not self._events:
            self.revision = before
        answer.header.CopyFrom(self.header)
        self._seal()
        return answer

    def _holds(self, one: pb.Compare) -> bool:
        item = self.at(one.key)
        there = item if item is not None else pb.KeyValue()
        match one.target:
            case pb.Compare.MOD:
                return there.mod_revision == one.mod_revision
            case pb.Compare.CREATE:
                return there.create_revision == one.create_revision
            case pb.Compare.VERSION:
                return there.version == one.version
            case _:
                return item is not None and there.value == one.value

    def _do(self, one: pb.RequestOp) -> pb.ResponseOp:
        if one.HasField("request_range"):
            return pb.ResponseOp(response_range=self.range(one.request_range))
        if one.HasField("request_put"):
            self._put(one.request_put)
            return pb.ResponseOp(response_put=pb.PutResponse())
        asked = one.request_delete_range
        deleted = self._delete(list(self._names_in(asked.key, asked.range_end)))
        return pb.ResponseOp(response_delete_range=pb.DeleteRangeResponse(deleted=deleted))

    def _put(self, request: pb.PutRequest) -> None:
        before = self.at(request.key)
        self._detach(before)
        item = pb.KeyValue(
            key=request.key,
            value=request.value,
            lease=request.lease,
            mod_revision=self.revision,
            create_revision=before.create_revision if before is not None else self.revision,
            version=before.version + 1 if before is not None else 1,
        )
        if request.lease:
            self.leases[request.lease].keys.add(request.key)
        self._keep(item)
        self._events.append(pb.Event(type=pb.Event.PUT, kv=item))

    def _delete(self, names: list[bytes]) -> int:
        deleted = 0
        for name in names:
            before = self.at(name)
            if before is not None:
                self._detach(before)
                gone = pb.KeyValue(key=name, mod_revision=self.revision)
                self._keep(gone)
                self._events.append(pb.Event(type=pb.Event.DELETE, kv=gone))
                deleted += 1
        return deleted

    def _keep(self, item: pb.KeyValue) -> None:
        if item.key not in self._history:
            bisect.insort(self._names, item.key)
        self._history.setdefault(item.key, []).append(item)

    def _detach(self, item: pb.KeyValue | None) -> None:
        if item is not None and item.lease in self.leases:
            self.leases[item.lease].keys.discard(item.key)

    def _seal(self) -> None:
        if self._events:
            sealed = Revision(self.revision, tuple(self._events))
            self._events = []
            self.log.append(sealed)
            for told in self.on_revision:
                told(sealed)

    def compact(self, revision: int) -> None:
        """Raises Refused."""
        if revision <= self.compacted:
            raise compacted()
        if revision > self.revision:
            raise Refused(
                grpc.StatusCode.OUT_OF_RANGE, "mvcc: required revision is a future revision"
            )
        self.compacted = revision
        self.log = [one for one in self.log if one.number >= revision]

    # Leases.

    def grant(self, lease: int, ttl_s: int, now: float) -> None:
        """Raises Refused."""
        if lease in self.leases:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "lease already exists")
        self.leases[lease] = Lease(ttl_s, now + ttl_s)

    def keep_alive(self, lease: int, now: float) -> int:
        """The seconds from now on; 0: the lease is gone."""
        kept = self.leases.get(lease)
        if kept is None:
            return 0
        kept.ends_at = now + kept.ttl_s
        return kept.ttl_s

    def revoke(self, lease: int) -> None:
        """Raises Refused."""
        gone = self.leases.pop(lease, None)
        if gone is None:
            raise no_lease()
        if gone.keys:
            self.revision += 1
            self._delete(sorted(gone.keys))
            self._seal()

    def expire(self, now: float) -> int:
        """Ends the leases whose time has come; returns how many."""
        ended = [lease for lease, kept in self.leases.items() if kept.ends_at <= now]
        for lease in ended:
            self.revoke(lease)
        return len(ended)

    def renew(self, now: float) -> None:
        """A new leader of etcd's gives every lease its whole time again."""
        for lease in self.leases.values():
            lease.ends_at = now + lease.ttl_s


def _too_many() -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, "too many operations in txn request")


def _check(branch: Iterable[pb.RequestOp]) -> None:
    puts, count = set(), 0
    for one in branch:
        count += 1
        if one.HasField("request_put"):
            if one.request_put.key in puts:
                raise Refused(
                    grpc.StatusCode.INVALID_ARGUMENT, "duplicate key given in txn request"
                )
            puts.add(one.request_put.key)
    if count > OPERATIONS_MAX:
        raise _too_many()
