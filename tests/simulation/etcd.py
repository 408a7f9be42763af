"""A simulated etcd: one store, members that answer for it, and a quorum that can be away.

It speaks etcd's own protocol to Slotway's own client. A proposal, once it has arrived, is applied
whatever becomes of the call; without a quorum it waits, and is applied later, or never.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any, TypeVar

import grpc
import grpc.aio

from slotway.etcd import rpc_pb2 as pb
from slotway.etcd import rpc_pb2_grpc as services
from tests.simulation.store import Refused, Revision, Store

COMMIT_S = 0.001
"""How long the members take to agree."""
EXPIRE_S = 0.5
"""How often leases are looked at."""
FRAGMENT_BYTES = 2 * 1024 * 1024
T = TypeVar("T")


class Quorum:
    """The store, and whether the members agree at present."""

    def __init__(self, random: Random, cluster_id: int = 0xC0FFEE) -> None:
        self.random, self.commit_s = random, COMMIT_S
        self.store = Store(cluster_id)
        self.away = False
        """Nothing is applied, and nothing is read."""
        self.expired = 0
        self.late = 0
        """Proposals that waited for a quorum, and were applied then."""
        self._waiting: list[Callable[[], None]] = []

    def wipe(self) -> None:
        """Another cluster, without any history."""
        told = self.store.on_revision
        self.store = Store(self.store.cluster_id + 1)
        self.store.on_revision = told

    def leave(self) -> None:
        """No quorum from now on."""
        self.away = True

    def come_back(self) -> None:
        """A quorum again; some of what was proposed meanwhile is applied, some is lost."""
        self.away = False
        self.store.renew(asyncio.get_running_loop().time())
        waiting, self._waiting = self._waiting, []
        for apply in waiting:
            if self.random.random() < 0.7:
                self.late += 1
                apply()

    async def propose(self, apply: Callable[[], T]) -> T:
        """Applies it, when that is agreed. Raises what it raises; cancelling it changes nothing."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = apply()
            except Refused as exc:
                if not done.done():
                    done.set_exception(exc)
            else:
                if not done.done():
                    done.set_result(result)

        def agree() -> None:
            if self.away:
                self._waiting.append(run)
            else:
                run()

        loop.call_later(self.commit_s * self.random.uniform(0.5, 2), agree)
        return await done

    async def expire(self) -> None:
        """Ends leases, for ever."""
        while True:
            await asyncio.sleep(EXPIRE_S)
            if not self.away:
                self.expired += self.store.expire(asyncio.get_running_loop().time())


def _answering(method: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """Turns a refusal into the call's status."""

    @functools.wraps(method)
    async def answering(self: Member, request: Any, context: Any) -> T:
        await self.check_leader(context)
        try:
            return await method(self, request, context)
        except Refused as exc:
            await context.abort(exc.code, exc.text)
            raise AssertionError from exc

    return answering


class Member(
    services.KVServicer,
    services.LeaseServicer,
    services.WatchServicer,
    services.MaintenanceServicer,
):
    """One member's services."""

    def __init__(self, quorum: Quorum) -> None:
        self._quorum = quorum
        self._watching: set[WatchStream] = set()

    def add_to(self, server: Any) -> None:
        """Registers the services."""
        services.add_KVServicer_to_server(self, server)
        services.add_LeaseServicer_to_server(self, server)
        services.add_WatchServicer_to_server(self, server)
        services.add_MaintenanceServicer_to_server(self, server)

    @property
    def _store(self) -> Store:
        return self._quorum.store

    async def check_leader(self, context: Any) -> None:
        """With `hasleader`, a member without its quorum refuses at once."""
        if self._quorum.away and ("hasleader", "true") in tuple(context.invocation_metadata()):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")

    @_answering
    async def Txn(self, request: pb.TxnRequest, context: Any) -> pb.TxnResponse:  # noqa: N802
        """See etcd."""
        return await self._quorum.propose(lambda: self._store.txn(request))

    @_answering
    async def Range(self, request: pb.RangeRequest, context: Any) -> pb.RangeResponse:  # noqa: N802
        """See etcd: linearizable."""
        return await self._quorum.propose(lambda: self._store.range(request))

    @_answering
    async def Compact(  # noqa: N802
        self, request: pb.CompactionRequest, context: Any
    ) -> pb.CompactionResponse:
        """See etcd."""
        await self._quorum.propose(lambda: self._store.compact(request.revision))
        return pb.CompactionResponse(header=self._store.header)

    @_answering
    async def LeaseGrant(  # noqa: N802
        self, request: pb.LeaseGrantRequest, context: Any
    ) -> pb.LeaseGrantResponse:
        """See etcd."""
        now = asyncio.get_running_loop().time
        await self._quorum.propose(lambda: self._store.grant(request.ID, request.TTL, now()))
        return pb.LeaseGrantResponse(header=self._store.header, ID=request.ID, TTL=request.TTL)

    @_answering
    async def LeaseRevoke(  # noqa: N802
        self, request: pb.LeaseRevokeRequest, context: Any
    ) -> pb.LeaseRevokeResponse:
        """See etcd."""
        await self._quorum.propose(lambda: self._store.revoke(request.ID))
        return pb.LeaseRevokeResponse(header=self._store.header)

    async def LeaseKeepAlive(  # noqa: N802
        self, requests: AsyncIterator[pb.LeaseKeepAliveRequest], context: Any
    ) -> AsyncIterator[pb.LeaseKeepAliveResponse]:
        """See etcd."""
        await self.check_leader(context)
        async for request in requests:
            beat = functools.partial(self._beat, request.ID)
            ttl_s = await self._quorum.propose(beat)
            yield pb.LeaseKeepAliveResponse(header=self._store.header, ID=request.ID, TTL=ttl_s)

    def _beat(self, lease: int) -> int:
        return self._store.keep_alive(lease, asyncio.get_running_loop().time())

    @_answering
    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:  # noqa: N802
        """See etcd."""
        return pb.StatusResponse(header=self._store.header, version="3.5.99")

    async def Watch(  # noqa: N802
        self, requests: AsyncIterator[pb.WatchRequest], context: Any
    ) -> AsyncIterator[pb.WatchResponse]:
        """See etcd; one watch per stream."""
        await self.check_leader(context)
        stream = WatchStream(self._quorum)
        self._watching.add(stream)
        reader = asyncio.create_task(stream.read(requests), name="etcd-watch")
        try:
            async for answer in stream.answers():
                yield answer
        finally:
            reader.cancel()
            self._watching.discard(stream)
            stream.close()


class WatchStream:
    """One watch: what was before it came, then what happens."""

    def __init__(self, quorum: Quorum) -> None:
        self._quorum = quorum
        self._create: pb.WatchCreateRequest | None = None
        self._next = 0
        self._answers: list[pb.WatchResponse] = []
        self._filled = asyncio.Event()

    async def read(self, requests: AsyncIterator[pb.WatchRequest]) -> None:
        """Takes what the client asks."""
        async for request in requests:
            if request.HasField("create_request"):
                self._begin(request.create_request)
            elif request.HasField("progress_request"):
                header = self._quorum.store.header
                self._say(pb.WatchResponse(header=header, watch_id=-1))

    def _begin(self, create: pb.WatchCreateRequest) -> None:
        store = self._quorum.store
        self._create, self._next = create, create.start_revision or store.revision + 1
        self._say(pb.WatchResponse(header=store.header, watch_id=create.watch_id, created=True))
        if self._next < store.compacted:
            self._say(
                pb.WatchResponse(
                    header=store.header,
                    watch_id=create.watch_id,
                    canceled=True,
                    compact_revision=store.compacted,
                )
            )
            self._create = None
            return
        for revision in store.log:
            self._happened(revision)
        store.on_revision.append(self._happened)

    def _happened(self, revision: Revision) -> None:
        if self._create is None or revision.number < self._next:
            return
        self._next = revision.number + 1
        key, end = self._create.key, self._create.range_end
        events = [
            one
            for one in revision.events
            if (
                one.kv.key == key
                if not end
                else key <= one.kv.key and (end == b"\0" or one.kv.key < end)
            )
        ]
        if not events:
            return
        pieces, size = [[]], 0  # type: ignore[var-annotated]
        for event in events:
            if size > FRAGMENT_BYTES or (pieces[-1] and self._quorum.random.random() < 0.02):
                pieces.append([])
                size = 0
            pieces[-1].append(event)
            size += len(event.kv.value)
        for number, piece in enumerate(pieces):
            more = number + 1 < len(pieces)
            answer = pb.WatchResponse(
                header=self._quorum.store.header, watch_id=self._create.watch_id, events=piece
            )
            answer.fragment = more and self._create.fragment
            self._say(answer)

    def _say(self, answer: pb.WatchResponse) -> None:
        self._answers.append(answer)
        self._filled.set()

    async def answers(self) -> AsyncIterator[pb.WatchResponse]:
        """In order, for ever."""
        while True:
            while self._answers and not self._quorum.away:
                yield self._answers.pop(0)
            self._filled.clear()
            if not self._answers:
                await self._filled.wait()
            else:  # whoever has no quorum tells nothing new
                await asyncio.sleep(0.05)

    def close(self) -> None:
        """The stream is over."""
        store = self._quorum.store
        if self._happened in store.on_revision:
            store.on_revision.remove(self._happened)
