"""The Routers' streams (ManagerService): everything said on them goes through the loop.

A stream's reader puts what comes into the inbox, a few messages ahead at most; its writer sends
what the loop has composed, one message per turn and router. A router that does not read loses its
stream rather than memory of ours: the Hello of the next stream says all that matters.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import structlog

from slotway.errors import SlotwayError
from slotway.manager.inbox import Closed, Inbox, Opened, Reported
from slotway.status import abort_with, invalid
from slotway.v1 import manager_pb2, manager_pb2_grpc

log = structlog.get_logger(__name__)

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
OPEN_S = 5.0
"""How long a stream may take to say `open`."""
UNREAD_MAX = 16
"""Messages of one stream that the loop has not taken yet."""
UNSENT_MAX = 256
"""Messages that a router has not read yet; past that its stream is closed."""


class Session:
    """One stream of one router."""

    def __init__(self, said: manager_pb2.Open) -> None:
        self.router = said.incarnation
        self.name = said.router
        self.address = said.address
        self.stream = said.stream
        self.told: set[str] = set()
        """Containers that were described on this stream."""
        self.peers: dict[str, tuple[tuple[str, int], ...]] = {}
        """Per action: the peers that were named on this stream, with their waiters."""
        self.unread = asyncio.Semaphore(UNREAD_MAX)
        self._draft: manager_pb2.AttachResponse | None = None
        self._outgoing: deque[manager_pb2.AttachResponse] = deque()
        self._filled = asyncio.Event()
        self._error: SlotwayError | None = None
        self._over = False

    @property
    def draft(self) -> manager_pb2.AttachResponse:
        """What this turn has to say so far."""
        if self._draft is None:
            self._draft = manager_pb2.AttachResponse()
        return self._draft

    def flush(self, term: tuple[int, int], turn: int, *, beat: bool = False) -> None:
        """Sends the draft; with `beat` even if it is empty."""
        if self._draft is None and not beat:
            return
        message, self._draft = self.draft, None
        message.term.epoch, message.term.revision = term
        message.turn = turn
        self.send(message)

    def send(self, message: manager_pb2.AttachResponse) -> None:
        """Queues a message; never waits."""
        if len(self._outgoing) >= UNSENT_MAX:
            self.close(
                SlotwayError(f"the Router has not read {UNSENT_MAX} messages", reason="NO_LEADER")
            )
            return
        self._outgoing.append(message)
        self._filled.set()

    def discard(self) -> None:
        """Drops what has not been sent: whoever planned it does not lead any more."""
        self._draft = None
        self._outgoing.clear()

    def close(self, error: SlotwayError | None = None) -> None:
        """Ends the stream, after what is queued has been sent, or at once with an error."""
        self._error = self._error or error
        self._over = True
        self._filled.set()

    async def outgoing(self) -> AsyncIterator[manager_pb2.AttachResponse]:
        """What is to be written, in order; raises the SlotwayError that the stream ends with."""
        while True:
            if self._error is not None:
                raise self._error
            if self._outgoing:
                yield self._outgoing.popleft()
            elif self._over:
                return
            else:
                self._filled.clear()
                await self._filled.wait()


class Sessions(manager_pb2_grpc.ManagerServiceServicer):
    """Serves Attach: each stream becomes a Session, and its life a sequence of happenings."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._open: dict[Session, None] = {}
        """In their order: whatever is done to all of them happens in the same one every time."""

    async def Attach(  # noqa: N802
        self,
        requests: AsyncIterator[manager_pb2.AttachRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[manager_pb2.AttachResponse]:
        """One session; see `Session`."""
        try:
            session = Session(await _opening(requests))
        except SlotwayError as exc:
            await abort_with(context, exc)
        self._open[session] = None
        self._inbox.put(Opened(session))
        reader = asyncio.create_task(self._read(session, requests), name="attach-reader")
        try:
            async for message in session.outgoing():
                yield message
        except SlotwayError as exc:
            await abort_with(context, exc)
        finally:
            reader.cancel()
            self._open.pop(session, None)
            self._inbox.put(Closed(session))

    async def _read(
        self, session: Session, requests: AsyncIterator[manager_pb2.AttachRequest]
    ) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError):
            async for message in requests:
                await session.unread.acquire()
                self._inbox.put(Reported(session, message))
        session.close()

    def close(self) -> None:
        """Ends all streams: the server stops."""
        for session in self._open:
            session.close()


async def _opening(requests: AsyncIterator[manager_pb2.AttachRequest]) -> manager_pb2.Open:
    try:
        async with asyncio.timeout(OPEN_S):
            first = await anext(requests, None)
    except TimeoutError:
        first = None
    if first is None or not first.HasField("open"):
        raise invalid("open", "has to be the first message of a stream")
    said = first.open
    for field in ("router", "incarnation", "address"):
        if not getattr(said, field):
            raise invalid(f"open.{field}", "must not be empty")
    if said.stream <= 0:
        raise invalid("open.stream", "must be above 0")
    return said
