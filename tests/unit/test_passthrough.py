"""Calls passed on to a real upstream server, over real gRPC on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from slotway.errors import SlotwayError
from slotway.router.passthrough import Passthrough
from slotway.status import abort_with, from_rpc_error
from slotway.v1 import action_pb2 as actions
from slotway.v1 import cluster_pb2 as clusters
from slotway.v1.action_pb2_grpc import (
    ActionServiceServicer,
    ActionServiceStub,
    add_ActionServiceServicer_to_server,
)
from slotway.v1.cluster_pb2_grpc import (
    ClusterServiceServicer,
    ClusterServiceStub,
    add_ClusterServiceServicer_to_server,
)
from slotway.v1.manager_pb2_grpc import ManagerServiceStub
from slotway.v1.router_pb2 import InvokeRequest
from slotway.v1.router_pb2_grpc import RouterServiceStub
from slotway.v1.standby_pb2_grpc import StandbyServiceStub

SECONDS_MAX = 10.0
Bytes = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


class Upstream(ActionServiceServicer, ClusterServiceServicer):
    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def GetAction(self, request: Any, context: Any) -> actions.GetActionResponse:  # noqa: N802
        if request.name == "not/leader":
            await abort_with(context, SlotwayError("ask m2", reason="NOT_LEADER"))
        if request.name == "no/such":
            await abort_with(
                context,
                SlotwayError("no action", reason="ACTION_NOT_FOUND", metadata={"name": "no/such"}),
            )
        if request.name == "for/ever":
            await self._wait()
        metadata = dict(context.invocation_metadata())
        await context.send_initial_metadata((("x-first", metadata.get("x-note", "")),))
        context.set_trailing_metadata((("x-last-bin", b"\x00\xff"),))
        left = context.time_remaining()
        action = actions.Action(name=request.name, revision=0 if left is None else int(left))
        return actions.GetActionResponse(action=action)

    async def PutAction(self, request: Any, context: Any) -> actions.PutActionResponse:  # noqa: N802
        request.action.exec.code_bytes = len(request.code)
        return actions.PutActionResponse(action=request.action)

    async def ListActions(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def DeleteAction(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def GetCluster(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def GetContainerLog(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def WatchCluster(self, request: Any, context: Any) -> Any:  # noqa: N802
        for revision in range(3):
            yield clusters.WatchClusterResponse(cluster=clusters.Cluster(ledger_revision=revision))
        await self._wait()

    async def _wait(self) -> None:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


class Pair:
    """An upstream, a server that passes on to it, and a client's channel to that."""

    def __init__(self) -> None:
        self.upstream = Upstream()
        self.to_leader: grpc.aio.Channel | None = None

    async def start(self) -> None:
        limit = [("grpc.max_receive_message_length", 32 << 20), ("grpc.so_reuseport", 0)]
        self.servers = [grpc.aio.server(options=limit), grpc.aio.server(options=limit)]
        add_ActionServiceServicer_to_server(self.upstream, self.servers[0])
        add_ClusterServiceServicer_to_server(self.upstream, self.servers[0])
        self.servers[1].add_generic_rpc_handlers((Passthrough(lambda: self.to_leader),))
        ports = [server.add_insecure_port("127.0.0.1:0") for server in self.servers]
        for server in self.servers:
            await server.start()
        self.to_leader = grpc.aio.insecure_channel(f"127.0.0.1:{ports[0]}", options=limit)
        self.client = grpc.aio.insecure_channel(f"127.0.0.1:{ports[1]}", options=limit)

    async def stop(self) -> None:
        for channel in (self.client, self.to_leader):
            if channel is not None:
                await channel.close()
        for server in self.servers:
            await server.stop(None)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.start()
    yield pair
    await pair.stop()


async def failure(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(SECONDS_MAX):
            await call
    return caught.value


async def test_metadata_and_deadline_cross_both_ways(pair: Pair) -> None:
    stub = ActionServiceStub(pair.client)
    call = stub.GetAction(
        actions.GetActionRequest(name="a/b"), timeout=100, metadata=(("x-note", "hello"),)
    )
    response = await call
    # gRPC sends timeouts from 100 s on in seconds, rounded up: once on each of the two hops.
    assert 90 <= response.action.revision <= 102
    assert ("x-first", "hello") in list(await call.initial_metadata())
    assert ("x-last-bin", b"\x00\xff") in list(await call.trailing_metadata())
    without = await stub.GetAction(actions.GetActionRequest(name="a/b"))
    assert without.action.revision == 0


async def test_errors_keep_their_details(pair: Pair) -> None:
    stub = ActionServiceStub(pair.client)
    error = from_rpc_error(await failure(stub.GetAction(actions.GetActionRequest(name="no/such"))))
    assert (error.code, str(error)) == (grpc.StatusCode.NOT_FOUND, "no action")
    assert (error.reason, error.metadata) == ("ACTION_NOT_FOUND", {"name": "no/such"})


async def test_code_of_the_greatest_size_passes(pair: Pair) -> None:
    request = actions.PutActionRequest(code=bytes(16 << 20))
    response = await ActionServiceStub(pair.client).PutAction(request)
    assert response.action.exec.code_bytes == 16 << 20


async def test_a_stream_is_passed_on_as_it_comes_and_its_end_goes_upstream(pair: Pair) -> None:
    call = ClusterServiceStub(pair.client).WatchCluster(clusters.WatchClusterRequest())
    for revision in range(3):
        response = await call.read()
        assert isinstance(response, clusters.WatchClusterResponse)
        assert response.cluster.ledger_revision == revision
    call.cancel()
    async with asyncio.timeout(SECONDS_MAX):
        await pair.upstream.cancelled.wait()


async def test_a_deadline_ends_the_call_upstream_too(pair: Pair) -> None:
    stub = ActionServiceStub(pair.client)
    error = await failure(stub.GetAction(actions.GetActionRequest(name="for/ever"), timeout=0.2))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(SECONDS_MAX):
        await pair.upstream.cancelled.wait()


@pytest.mark.parametrize("how", ["nobody", "deposed", "closed", "gone"])
async def test_without_a_leader_the_answer_says_what_to_do(pair: Pair, how: str) -> None:
    name, to_leader = "for/ever", pair.to_leader
    assert to_leader is not None
    if how == "nobody":
        await to_leader.close()
        pair.to_leader = None
    elif how == "deposed":
        name = "not/leader"
    call = ActionServiceStub(pair.client).GetAction(actions.GetActionRequest(name=name))
    failing = asyncio.ensure_future(failure(call))
    if how in ("closed", "gone"):
        await pair.upstream.entered.wait()
        await (to_leader.close() if how == "closed" else pair.servers[0].stop(None))
    error = from_rpc_error(await failing)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_LEADER")
    assert error.retry_delay is not None
    assert "slotway manager" in str(error)


async def test_what_is_not_to_be_passed_on_is_unimplemented(pair: Pair) -> None:
    invoke = RouterServiceStub(pair.client).Invoke(InvokeRequest())
    assert (await failure(invoke)).code() is grpc.StatusCode.UNIMPLEMENTED
    attach = ManagerServiceStub(pair.client).Attach()
    assert (await failure(attach.read())).code() is grpc.StatusCode.UNIMPLEMENTED
    follow = StandbyServiceStub(pair.client).Follow()
    assert (await failure(follow.read())).code() is grpc.StatusCode.UNIMPLEMENTED
    other: Bytes = pair.client.unary_unary("/another.v1.Service/Method")
    assert (await failure(other(b""))).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_method_that_this_version_does_not_know_is_passed_on(pair: Pair) -> None:
    newer: Bytes = pair.client.unary_unary("/slotway.v1.ActionService/Rename")
    error = await failure(newer(b""))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
