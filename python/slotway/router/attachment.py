"""One Manager's stream: opened again and again, written to when something is due.

An attachment decides nothing. Its owner says what is to be written and hears what was read; a
stream that ends for whatever reason is opened anew, under a greater number, after a jittered
back-off. What was written to a stream that broke may be lost: the Hello of the next one says all
of it again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import grpc
import grpc.aio
import structlog

from slotway.router.plane import Term, Version
from slotway.v1.manager_pb2 import AttachRequest, AttachResponse, Container, Open
from slotway.v1.manager_pb2_grpc import ManagerServiceStub

_log = structlog.get_logger()
_T = TypeVar("_T")

OPEN_SECONDS = 5.0
"""For a connection and the first write."""
WRITE_SECONDS = 10.0
SILENCE_SECONDS_MIN = 5.0
SILENCE_PERIODS = 10
"""A leader that is silent for so long is tried on a new stream."""
STANDBY_SILENCE_SECONDS = 60.0
"""A standby may have nothing to say, but a dead connection must not be kept for ever."""
RETRY_SECONDS_MIN = 0.05
RETRY_SECONDS_MAX = 1.0
LOG_SECONDS = 30.0
"""Between two lines about the same Manager that still cannot be reached."""
MESSAGE_BYTES_MAX = 24 * 1024 * 1024

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # A pool of its own: otherwise a new channel inherits the back-off of the last failed
    # connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this Router is: its configured name, its process's random id, its front door
    (host:port)."""

    name: str
    incarnation: str
    address: str


class Owner(Protocol):
    """Whoever decides what an attachment says and what becomes of what it hears. Nothing here
    waits."""

    def next_stream(self) -> int:
        """A number greater than all before."""

    def opened(self, attachment: Attachment) -> None:
        """The stream `attachment.stream` is about to be opened."""

    def closed(self, attachment: Attachment) -> None:
        """That stream is over."""

    def heard(self, attachment: Attachment, message: AttachResponse) -> None:
        """A message came; StaleStreamError to have the stream opened anew."""

    def compose(self, attachment: Attachment) -> AttachRequest | None:
        """What is due now, which then no longer is; None: nothing."""


class StaleStreamError(Exception):
    """The stream has to be opened anew."""


@dataclass(slots=True)
class Due:
    """What is to be said on a stream. Later facts replace earlier ones, so that it is bounded by
    what exists."""

    hello: tuple[Term, list[tuple[str, int, int]]] | None = None
    acknowledgements: dict[str, tuple[int, Version]] = field(default_factory=dict)
    report: bool = False
    leaving: bool = False
    leader_age: bool = False
    """The Manager wants to know how long ago the leader was heard."""


class Attachment:
    """The stream to one Manager, and what is known of the stream that is open now."""

    def __init__(self, owner: Owner, identity: Identity, manager: str, address: str) -> None:
        self.manager = manager
        self.address = address
        self.wanted = True
        """Cleared when the Manager is not listed any more: the stream is used while it lasts, and
        not opened again."""
        self.stream = 0
        self.term: Term | None = None
        """The term in which the Manager of this stream greeted last."""
        self.turn = 0
        """The newest turn of that Manager's loop that was heard of."""
        self.period = 0.5
        """Seconds between the Manager's beats, from its Welcome."""
        self.heard_at = 0.0
        self.channel: grpc.aio.Channel | None = None
        """The connection, for calls to be passed on to the leader; closed with the stream."""
        self.told: dict[str, Container] = {}
        """What this stream said of containers: an order names them by their id from then on."""
        self.due = Due()
        self._owner = owner
        self._identity = identity
        self._wake = asyncio.Event()
        self._finishing = False

    def wake(self) -> None:
        """Has what is due composed and written."""
        self._wake.set()

    def finish(self) -> None:
        """Ends the stream in good order: all that is due is written, the Manager reads it and
        closes."""
        self.wanted, self._finishing = False, True
        self._wake.set()

    async def run(self) -> None:
        """Keeps a stream open for as long as the Manager is wanted; never raises."""
        retry, log_again_at = RETRY_SECONDS_MIN, 0.0
        log = _log.bind(manager=self.manager, address=self.address)
        while self.wanted:
            self.heard_at = 0.0
            try:
                await self._live()
                log.info("the manager closed the stream")
            except* StaleStreamError:
                log.info("the manager was silent: opening a new stream")
            except* (grpc.RpcError, TimeoutError, OSError, asyncio.InvalidStateError) as group:
                now = asyncio.get_running_loop().time()
                if self.heard_at or now >= log_again_at:
                    log.warning("no session", why=_reason(group.exceptions[0]))
                    log_again_at = now + LOG_SECONDS
            except* Exception:
                log.exception("the session failed")
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # A TaskGroup that fails while it is cancelled forgets that it was cancelled.
                raise asyncio.CancelledError
            retry = RETRY_SECONDS_MIN if self.heard_at else min(retry * 2, RETRY_SECONDS_MAX)
            await asyncio.sleep(retry * random.uniform(0.5, 1.5))

    async def _live(self) -> None:
        self.stream = self._owner.next_stream()
        self.due, self.told, self.term = Due(), {}, None
        async with grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS) as channel:
            self.channel = channel
            self._owner.opened(self)
            try:
                call = ManagerServiceStub(channel).Attach()
                async with asyncio.timeout(OPEN_SECONDS):
                    await _or_cut(call.write(AttachRequest(open=self._open())))
                async with asyncio.TaskGroup() as tasks:
                    writing = tasks.create_task(self._write(call))
                    await self._read(call)
                    writing.cancel()
            finally:
                self.channel = None
                self._owner.closed(self)
                self.term = None

    def _open(self) -> Open:
        return Open(
            router=self._identity.name,
            incarnation=self._identity.incarnation,
            address=self._identity.address,
            stream=self.stream,
        )

    async def _read(self, call: grpc.aio.StreamStreamCall[AttachRequest, AttachResponse]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            silence = STANDBY_SILENCE_SECONDS
            if self.term is not None:
                silence = max(SILENCE_PERIODS * self.period, SILENCE_SECONDS_MIN)
            try:
                async with asyncio.timeout(silence):
                    message = await _or_cut(call.read())
            except TimeoutError:
                if self.term is None:
                    raise StaleStreamError from None  # a standby has nothing to say
                raise
            if not isinstance(message, AttachResponse):
                return
            self._owner.heard(self, message)
            self.heard_at = loop.time()

    async def _write(self, call: grpc.aio.StreamStreamCall[AttachRequest, AttachResponse]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            message = self._owner.compose(self)
            async with asyncio.timeout(WRITE_SECONDS):
                if message is not None:
                    await _or_cut(call.write(message))
                if self._finishing:
                    await call.done_writing()
                    return


async def _or_cut(operation: Awaitable[_T]) -> _T:
    """grpc.aio answers a call that was cut with CancelledError, as if this task had been
    cancelled."""
    try:
        return await operation
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling() == 0:
            raise ConnectionError("the connection was closed") from None
        raise


def _reason(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
