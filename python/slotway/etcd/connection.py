"""Calls to etcd's members: one deadline per call, another endpoint when one does not answer.

A call that changes nothing is repeated until its deadline. A call that writes is sent once, to a
connection that was seen ready; if its answer is lost it raises OutcomeUnknown, and is not repeated.
The proxy of the environment is not used: etcd holds the ledger, and lies in the same network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import grpc
import grpc.aio
import structlog

from slotway.endpoints import split_endpoint
from slotway.etcd import rpc_pb2, rpc_pb2_grpc
from slotway.etcd.errors import (
    Compacted,
    EtcdError,
    EtcdUnavailable,
    LeaseGone,
    OutcomeUnknown,
    Verdict,
    WrongCluster,
    judge,
)
from slotway.etcd.model import Access

log = structlog.get_logger(__name__)

ANSWER_BYTES_MAX = 128 * 1024 * 1024
PAUSE_S = 0.05
"""Between two rounds over all endpoints."""

Metadata = tuple[tuple[str, str], ...]
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),  # how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
    # A connection into a black hole ends. etcd allows one ping in five seconds.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)


class Answer(Protocol):
    """What every answer of etcd's has."""

    @property
    def header(self) -> rpc_pb2.ResponseHeader:
        """Which cluster answered, at which revision."""


Q = TypeVar("Q", contravariant=True)
A = TypeVar("A", bound=Answer, covariant=True)


class Method(Protocol[Q, A]):
    """A method of one member: one request, one answer."""

    def __call__(self, request: Q, /, *, timeout: float, metadata: Metadata) -> Awaitable[A]:
        """Raises AioRpcError."""


class Member:
    """One endpoint: its channel and its stubs."""

    def __init__(self, endpoint: str, access: Access):
        self.endpoint = endpoint
        scheme, target = split_endpoint(endpoint)
        if scheme == "https" or (scheme == "" and (access.ca or access.cert)):
            credentials = grpc.ssl_channel_credentials(
                *(Path(path).read_bytes() if path else None for path in _pem_files(access))
            )
            self.channel = grpc.aio.secure_channel(target, credentials, _OPTIONS)
        else:
            self.channel = grpc.aio.insecure_channel(target, _OPTIONS)
        self.kv = rpc_pb2_grpc.KVStub(self.channel)
        self.watch = rpc_pb2_grpc.WatchStub(self.channel)
        self.lease = rpc_pb2_grpc.LeaseStub(self.channel)
        self.maintenance = rpc_pb2_grpc.MaintenanceStub(self.channel)
        self.auth = rpc_pb2_grpc.AuthStub(self.channel)

    async def ready(self, timeout_s: float) -> bool:
        """Whether the channel is connected; False at once if an attempt has failed."""
        state = self.channel.get_state(try_to_connect=True)
        try:
            async with asyncio.timeout(timeout_s):
                while state is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        return False
                    await self.channel.wait_for_state_change(state)
                    state = self.channel.get_state(try_to_connect=True)
        except TimeoutError:
            return False
        return True

    async def keep_alive(
        self,
        request: rpc_pb2.LeaseKeepAliveRequest,
        /,
        *,
        timeout: float,  # noqa: ASYNC109  (it is gRPC's own)
        metadata: Metadata,
    ) -> rpc_pb2.LeaseKeepAliveResponse:
        """One beat of a lease, on a stream of its own: so it has a deadline like all calls."""
        call = self.lease.LeaseKeepAlive(timeout=timeout, metadata=metadata)
        try:
            await call.write(request)
            answer = await call.read()
        finally:
            call.cancel()
        if not isinstance(answer, rpc_pb2.LeaseKeepAliveResponse):
            raise EtcdError(f"{self.endpoint}: etcd closed a keepalive stream without an answer")
        return answer

    async def complaint(self) -> str:
        """Why the channel is not connected, in gRPC's words."""
        try:
            await self.maintenance.Status(rpc_pb2.StatusRequest(), timeout=0.05)
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return "does not answer"
            return (exc.details() or exc.code().name).rsplit("last error: ", 1)[-1]
        return "answers late"


def _pem_files(access: Access) -> tuple[str, str, str]:
    return access.ca, access.key, access.cert  # the order of grpc.ssl_channel_credentials


class Connection:
    """All endpoints of one etcd cluster, the one in use, and the token of the user.

    `cluster_id` is 0 until the first answer; an answer of another cluster raises WrongCluster.
    """

    def __init__(self, access: Access):
        if not access.endpoints:
            raise ValueError("no etcd endpoint is given")
        self.access = access
        self.cluster_id = 0
        self._members = [Member(endpoint, access) for endpoint in access.endpoints]
        self._current = 0
        self._token = ""
        self._authenticating = asyncio.Lock()

    async def close(self) -> None:
        """Closes all channels; calls that still run are cancelled."""
        for member in self._members:
            await member.channel.close()

    async def call(
        self,
        pick: Callable[[Member], Method[Q, A]],
        request: Q,
        *,
        repeat: bool,
        timeout_s: float = 0,
    ) -> A:
        """Sends `request` to the first endpoint that takes it, and returns the answer.

        `repeat`: the request may be applied more than once. Raises EtcdError if etcd refuses it,
        Compacted, EtcdUnavailable, WrongCluster, and OutcomeUnknown unless `repeat`.
        """
        deadline = _now() + (timeout_s or self.access.timeout_s)
        untried = len(self._members)
        said: dict[str, str] = {}
        while (left_s := deadline - _now()) > 0:
            # The last endpoint to be tried gets all the time that is left.
            share_s = left_s / max(1, untried)
            member = self._members[self._current]
            if not await member.ready(share_s):
                untried = await self._turn_away(member, untried)
                continue
            metadata: Metadata = ()
            try:
                metadata = await self.metadata(member, deadline - _now())
                answer = await pick(member)(
                    request,
                    timeout=share_s if repeat else max(0.001, deadline - _now()),
                    metadata=metadata,
                )
            except grpc.aio.AioRpcError as exc:
                details = exc.details() or ""
                match judge(exc.code(), details):
                    case Verdict.COMPACTED:
                        raise Compacted(details) from exc
                    case Verdict.REFUSED if details == "etcdserver: requested lease not found":
                        raise LeaseGone(f"{member.endpoint}: {details}") from exc
                    case Verdict.REFUSED:
                        raise EtcdError(f"{member.endpoint}: {details}") from exc
                    case Verdict.AUTHENTICATE if self.access.user:
                        self.forget_token(metadata)
                    case Verdict.AUTHENTICATE:
                        raise EtcdError(f"{member.endpoint}: {details}") from exc
                    case Verdict.UNKNOWN if metadata and not repeat:  # it was sent
                        self._next(member)
                        raise OutcomeUnknown(
                            f"{member.endpoint}: no answer to a write: {exc.code().name} {details}"
                        ) from exc
                    case _:
                        if exc.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                            said[member.endpoint] = details
                        untried = await self._turn_away(member, untried)
                continue
            self.check(answer.header)
            return answer
        raise await self.unavailable(said)

    async def stream_member(self, timeout_s: float) -> tuple[Member, Metadata]:
        """A connected endpoint for a stream, and the metadata to open it with."""
        deadline = _now() + timeout_s
        untried = len(self._members)
        while (left_s := deadline - _now()) > 0:
            member = self._members[self._current]
            if await member.ready(left_s / max(1, untried)):
                try:
                    return member, await self.metadata(member, left_s)
                except grpc.aio.AioRpcError as exc:
                    if judge(exc.code(), exc.details() or "") is Verdict.REFUSED:
                        raise EtcdError(f"{member.endpoint}: {exc.details()}") from exc
            untried = await self._turn_away(member, untried)
        raise await self.unavailable({})

    def leave(self, member: Member) -> None:
        """A stream to this endpoint failed or fell silent: use another one from now on."""
        self._next(member)

    def check(self, header: rpc_pb2.ResponseHeader) -> None:
        """Raises WrongCluster if the answer is not of the cluster that answered first."""
        if self.cluster_id == 0:
            self.cluster_id = header.cluster_id
        elif header.cluster_id != self.cluster_id:
            raise WrongCluster(
                f"etcd at {', '.join(self.access.endpoints)} is cluster {header.cluster_id:x}, "
                f"but it was cluster {self.cluster_id:x} before; see `slotway cluster recover`"
            )

    async def metadata(self, member: Member, timeout_s: float) -> Metadata:
        """`hasleader`, so that a member cut off from its quorum refuses, and the user's token.

        Raises AioRpcError if the user cannot be authenticated.
        """
        required = (("hasleader", "true"),)
        if not self.access.user:
            return required
        async with self._authenticating:
            if not self._token:
                request = rpc_pb2.AuthenticateRequest(
                    name=self.access.user, password=self.access.password
                )
                try:
                    answer = await member.auth.Authenticate(request, timeout=max(0.001, timeout_s))
                except grpc.aio.AioRpcError as exc:
                    if exc.details() != "etcdserver: authentication is not enabled":
                        raise
                    return required
                self._token = answer.token
            return (*required, ("token", self._token))

    def forget_token(self, metadata: Metadata) -> None:
        """The token in `metadata` was refused: the next call asks for a new one."""
        if ("token", self._token) in metadata:
            self._token = ""

    async def unavailable(self, said: Mapping[str, str]) -> EtcdUnavailable:
        """The error that names every endpoint and what it said, or what is wrong there."""
        complaints = [
            f"{one.endpoint}: {said.get(one.endpoint) or await one.complaint()}"
            for one in self._members
        ]
        return EtcdUnavailable(f"etcd cannot be reached: {'; '.join(complaints)}")

    async def _turn_away(self, member: Member, untried: int) -> int:
        """Goes on to the next endpoint; pauses after each round. Returns how many are untried."""
        self._next(member)
        if untried > 1:
            return untried - 1
        await asyncio.sleep(PAUSE_S)
        return 1

    def _next(self, member: Member) -> None:
        if self._members[self._current] is member:
            self._current = (self._current + 1) % len(self._members)
            if len(self._members) > 1:
                log.info("another etcd endpoint", left=member.endpoint)


def _now() -> float:
    return asyncio.get_running_loop().time()
