"""Errors survive the way over a real gRPC call, and every reason has a code."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from slotway.errors import SlotwayError
from slotway.status import CODES, abort_with, from_rpc_error, invalid
from slotway.v1 import action_pb2, action_pb2_grpc, errors_pb2


def test_every_reason_has_a_code() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()}  # noqa: SIM118
    assert names - {"UNSPECIFIED"} == set(CODES)


def failing(error: SlotwayError) -> grpc.GenericRpcHandler:
    async def get_action(
        request: action_pb2.GetActionRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> action_pb2.GetActionResponse:
        await abort_with(context, error)

    method = grpc.unary_unary_rpc_method_handler(
        get_action,
        request_deserializer=action_pb2.GetActionRequest.FromString,
        response_serializer=action_pb2.GetActionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("slotway.v1.ActionService", {"GetAction": method})


@pytest.mark.parametrize(
    "error",
    [
        invalid("action.limits.concurrency", "must be between 1 and 1000, not 0"),
        SlotwayError(
            "no slot came free", reason="MAX_WAIT", retry_delay=timedelta(milliseconds=1500)
        ),
        SlotwayError("Traceback …\n" + "x" * 100_000, reason="INIT_FAILED"),
        SlotwayError("Traceback …\n" + "ä" * 100_000, reason="INIT_FAILED"),
        SlotwayError("Traceback …\n" + "\n" * 100_000 + "end", reason="INIT_FAILED"),
    ],
)
async def test_an_error_crosses_a_call(error: SlotwayError) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((failing(error),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await action_pb2_grpc.ActionServiceStub(channel).GetAction(
                    action_pb2.GetActionRequest(name="a/b"), timeout=10
                )
    finally:
        await server.stop(0)
    seen = from_rpc_error(caught.value)
    assert (seen.reason, seen.metadata, seen.retry_delay) == (
        error.reason,
        error.metadata,
        error.retry_delay,
    )
    assert seen.code is CODES[error.reason]
    assert str(seen)[:20] == str(error)[:20]


async def test_a_refused_connection_has_no_reason() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await action_pb2_grpc.ActionServiceStub(channel).GetAction(
                action_pb2.GetActionRequest(name="a/b"), timeout=10
            )
    seen = from_rpc_error(caught.value)
    assert (seen.reason, seen.code) == ("", grpc.StatusCode.UNAVAILABLE)
