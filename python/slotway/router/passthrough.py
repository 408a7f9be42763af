"""Passes calls on to the leading Manager, as bytes: what a Router does not serve itself, it does
not read.

Any method of `slotway.v1` with one request and one or many responses goes through, so that a
Router need not be newer than the Managers behind it. Deadlines, metadata, trailers and status
details are kept. `Invoke` never comes here, and the Managers' own services are not passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio

from slotway.errors import SlotwayError
from slotway.status import abort_with, from_rpc_error

_PREFIX = "/slotway.v1."
_NOT_PASSED_ON = (
    "RouterService",
    "ActivationService",
    "QueueService",
    "ManagerService",
    "StandbyService",
)
_RETRY_DELAY = timedelta(seconds=1)

_Metadata = Iterable[tuple[str, str | bytes]]
_Context = grpc.aio.ServicerContext[bytes, bytes]


class Passthrough(grpc.GenericRpcHandler):
    """Handles every method that is to be passed on; `leader` gives the connection to it, None
    while nobody leads."""

    def __init__(self, leader: Callable[[], grpc.aio.Channel | None]) -> None:
        self._leader = leader

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method, None if it is not passed on."""
        method = handler_call_details.method
        service = method.removeprefix(_PREFIX).partition("/")[0]
        if not method.startswith(_PREFIX) or service in _NOT_PASSED_ON:
            return None

        async def handle(request: bytes, context: _Context) -> None:
            await self._pass_on(method, request, context)

        return grpc.unary_stream_rpc_method_handler(handle)

    async def _pass_on(self, method: str, request: bytes, context: _Context) -> None:
        channel = self._leader()
        if channel is None:
            await abort_with(context, _no_leader("no Manager leads at present"))
        upstream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
        call = upstream(
            request,
            timeout=context.time_remaining(),
            metadata=_passed_on(context.invocation_metadata() or ()),
        )
        try:
            await context.send_initial_metadata(_passed_on(await call.initial_metadata()))
            async for response in call:
                await context.write(response)
            context.set_trailing_metadata(_passed_on(await call.trailing_metadata()))
        except grpc.aio.AioRpcError as error:
            reason = from_rpc_error(error).reason
            if reason == "NOT_LEADER":
                await abort_with(context, _no_leader("the leader has just changed"))
            if not reason and error.code() is grpc.StatusCode.UNAVAILABLE:
                await abort_with(context, _no_leader(f"the leader is lost: {error.details()}"))
            await context.abort(
                error.code(), error.details() or "", _passed_on(error.trailing_metadata())
            )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The connection was closed with the leader's session; grpc.aio tells it in this way.
            await abort_with(context, _no_leader("the leader was lost while the call ran"))
        finally:
            call.cancel()


def _no_leader(what: str) -> SlotwayError:
    return SlotwayError(
        f"{what}; requests to warm containers go on. Try again in a moment; if it stays so, look "
        "whether a Manager runs and reaches etcd (`slotway manager`)",
        reason="NO_LEADER",
        retry_delay=_RETRY_DELAY,
    )


def _passed_on(metadata: _Metadata) -> tuple[tuple[str, str | bytes], ...]:
    """All metadata but what each connection makes for itself."""
    return tuple(
        (key, value)
        for key, value in metadata
        if key != "user-agent" and (key == "grpc-status-details-bin" or key[:5] != "grpc-")
    )
