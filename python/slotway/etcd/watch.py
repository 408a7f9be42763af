"""A watch that goes on by itself: it reconnects, resumes by revision, and never skips an event.

What it cannot make good it raises: Compacted (events are gone: list anew, and watch from there) and
WrongCluster (etcd's history is not the one that was watched). Nothing is buffered here: what is not
read yet waits at etcd, by gRPC's flow control.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self, TypeAlias

import grpc
import grpc.aio
import structlog

from slotway.etcd import rpc_pb2
from slotway.etcd.connection import Connection, Member, Metadata
from slotway.etcd.errors import (
    Compacted,
    EtcdError,
    EtcdUnavailable,
    Verdict,
    WrongCluster,
    judge,
)
from slotway.etcd.model import Batch, Event, range_end
from slotway.etcd.wire import event_of, key_bytes

log = structlog.get_logger(__name__)

QUIET_S = 2.0
"""After so long without a message etcd is asked for one; after as long again the stream is dead."""
PAUSE_S = 0.1
WATCH_ID = 1
"""Between two attempts to open the stream."""

Stream: TypeAlias = grpc.aio.StreamStreamCall[rpc_pb2.WatchRequest, rpc_pb2.WatchResponse]


class Broken(Exception):  # noqa: N818
    """The stream ended or fell silent: open another one."""


class Watch:
    """An endless iterator of batches; `start` is the first revision that is told.

    Use it as an async context manager. Cancelling `anext` loses nothing.
    """

    def __init__(
        self,
        connection: Connection,
        key: str,
        start: int,
        *,
        prefix: bool = True,
        quiet_s: float = QUIET_S,
    ):
        assert start > 0, "a watch begins at a revision, so that nothing can be missed"
        self._connection = connection
        self._key = key_bytes(key)
        self._range_end = range_end(self._key) if prefix else b""
        self._next = start
        self._quiet_s = quiet_s
        self._member: Member | None = None
        self._metadata: Metadata = ()
        self._stream: Stream | None = None
        self._reading: asyncio.Future[object] | None = None
        self._fragments: list[Event] = []
        self._refused = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        reading = self._reading
        self._drop()
        if reading is not None:
            await asyncio.wait({reading})

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """The next events, whole revisions at a time. Waits for as long as etcd is away."""
        while True:
            try:
                if self._stream is None:
                    await self._open()
                batch = await self._take(await self._read())
            except grpc.aio.AioRpcError as exc:
                self._judge(exc.code(), exc.details() or "", exc)
                await self._reopen(exc.details() or exc.code().name)
            except (Broken, EtcdUnavailable) as exc:
                await self._reopen(str(exc))
            else:
                if batch is not None:
                    return batch

    async def _open(self) -> None:
        self._member, self._metadata = await self._connection.stream_member(self._quiet_s)
        self._stream = self._member.watch.Watch(metadata=self._metadata)
        create = rpc_pb2.WatchCreateRequest(
            key=self._key,
            range_end=self._range_end,
            start_revision=self._next,
            watch_id=WATCH_ID,
            progress_notify=True,
            fragment=True,
        )
        await self._write(rpc_pb2.WatchRequest(create_request=create))

    async def _write(self, request: rpc_pb2.WatchRequest) -> None:
        assert self._stream is not None
        try:
            async with asyncio.timeout(self._quiet_s):
                await self._stream.write(request)
        except TimeoutError as exc:
            raise Broken("the stream takes nothing") from exc
        except asyncio.InvalidStateError as exc:  # its end is known to gRPC, and not yet to `read`
            raise Broken("the stream has ended") from exc
        except asyncio.CancelledError:  # a cancelled write has ended the stream
            self._drop()
            raise

    async def _reopen(self, why: str) -> None:
        """Leaves the stream and its endpoint; the next turn opens another one."""
        log.info("etcd watch interrupted", next_revision=self._next, why=why)
        if self._member is not None:
            self._connection.leave(self._member)
        self._drop()
        await asyncio.sleep(PAUSE_S)

    async def _history_goes_on(self) -> None:
        """The member is behind the revision that was told: it lags, or etcd has lost history."""
        now = await self._connection.call(
            lambda member: member.kv.Range,
            rpc_pb2.RangeRequest(key=self._key, count_only=True),
            repeat=True,
        )
        if now.header.revision < self._next - 1:
            raise WrongCluster(
                f"etcd is at revision {now.header.revision}, but was at {self._next - 1} before: "
                "it has lost history; see `slotway cluster recover`"
            )

    async def _read(self) -> rpc_pb2.WatchResponse:
        """The next message of the stream, which is asked for a sign of life when it is quiet."""
        for patience in (True, False):
            if self._reading is None:
                # A task of its own: cancelling a read would end the stream.
                assert self._stream is not None
                self._reading = asyncio.ensure_future(self._stream.read())
                self._reading.add_done_callback(_seen)
            done, _ = await asyncio.wait({self._reading}, timeout=self._quiet_s)
            if done:
                reading, self._reading = self._reading, None
                answer = None if reading.cancelled() else reading.result()
                if not isinstance(answer, rpc_pb2.WatchResponse):
                    raise Broken("the stream ended")
                return answer
            if patience:
                sign = rpc_pb2.WatchProgressRequest()
                await self._write(rpc_pb2.WatchRequest(progress_request=sign))
        raise Broken(f"silent for {2 * self._quiet_s} s")

    async def _take(self, answer: rpc_pb2.WatchResponse) -> Batch | None:
        self._connection.check(answer.header)
        if answer.compact_revision:
            raise Compacted(
                f"revision {self._next} is compacted, {answer.compact_revision} is the oldest left",
                answer.compact_revision,
            )
        if answer.canceled:
            self._judge(grpc.StatusCode.ABORTED, answer.cancel_reason, None)
            raise Broken(answer.cancel_reason or "cancelled by etcd")
        if answer.created:
            self._refused = False
            if answer.header.revision < self._next - 1:
                await self._history_goes_on()
            return None
        self._fragments.extend(map(event_of, answer.events))
        if answer.fragment:
            return None
        events = tuple(one for one in self._fragments if one.item.mod_revision >= self._next)
        self._fragments = []
        if events:
            self._next = events[-1].item.mod_revision + 1
            return Batch(self._next - 1, events)
        # An answer to our own request (watch id -1) promises nothing: some versions of etcd send it
        # before the events up to its revision (etcd#15220).
        if (
            answer.watch_id == WATCH_ID
            and not answer.events
            and answer.header.revision >= self._next
        ):
            self._next = answer.header.revision + 1
            return Batch(answer.header.revision, ())
        return None

    def _judge(self, code: grpc.StatusCode, details: str, exc: Exception | None) -> None:
        """Raises EtcdError if another stream would not help."""
        verdict = judge(code, details)
        # To a watch etcd also says "permission denied" when it does not know the token: only a
        # second time, with a new token, is it believed.
        if verdict is Verdict.REFUSED and (self._refused or not self._connection.access.user):
            raise EtcdError(f"etcd refuses the watch: {details}") from exc
        if verdict in (Verdict.REFUSED, Verdict.AUTHENTICATE):
            self._refused = verdict is Verdict.REFUSED
            self._connection.forget_token(self._metadata)

    def _drop(self) -> None:
        """Ends the stream; what was read of a revision that is not whole is read again."""
        stream, self._stream = self._stream, None
        self._reading, self._member, self._fragments = None, None, []
        if stream is not None:
            stream.cancel()  # ends a read that is under way, too


def _seen(reading: asyncio.Future[object]) -> None:
    """Marks the outcome of a read that nobody waits for any more as seen."""
    if not reading.cancelled():
        reading.exception()
