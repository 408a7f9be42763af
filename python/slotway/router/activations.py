"""`ActivationService` and `QueueService`: what became of asynchronous invocations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import grpc.aio

from slotway.activations import Activation, State, Status, Store
from slotway.errors import SlotwayError
from slotway.status import abort_with, invalid
from slotway.v1 import activation_pb2 as pb
from slotway.v1.activation_pb2_grpc import ActivationServiceServicer, QueueServiceServicer

_STATES = {
    State.QUEUED: pb.Activation.STATE_QUEUED,
    State.CLAIMED: pb.Activation.STATE_CLAIMED,
    State.DONE: pb.Activation.STATE_DONE,
    State.DEAD: pb.Activation.STATE_DEAD,
}
_STATUSES = {
    Status.SUCCESS: pb.Activation.STATUS_SUCCESS,
    Status.APPLICATION_ERROR: pb.Activation.STATUS_APPLICATION_ERROR,
    Status.DEVELOPER_ERROR: pb.Activation.STATUS_DEVELOPER_ERROR,
    Status.TIMEOUT: pb.Activation.STATUS_TIMEOUT,
}
PAGE_DEFAULT = 30
PAGE_MAX = 1_000
COUNT_MAX = 1_000_000
"""Of an action, in the queue."""


class ActivationServer(ActivationServiceServicer):
    """Serves from a store that may have to be opened first."""

    def __init__(self, store: Callable[[], Store]) -> None:
        """`store` blocks, and raises SlotwayError if there is none."""
        self._store = store

    async def GetActivation(  # noqa: N802 - gRPC's
        self,
        request: pb.GetActivationRequest,
        context: grpc.aio.ServicerContext[pb.GetActivationRequest, pb.GetActivationResponse],
    ) -> pb.GetActivationResponse:
        """Reads one."""
        try:
            found = await asyncio.to_thread(lambda: self._store().get(request.activation_id))
            if found is None:
                raise SlotwayError(
                    f"no activation has the id {request.activation_id!r}; its record may have been "
                    "removed",
                    reason="ACTIVATION_NOT_FOUND",
                )
        except SlotwayError as error:
            await abort_with(context, error)
        return pb.GetActivationResponse(activation=_message(found, with_result=True))

    async def ListActivations(  # noqa: N802 - gRPC's
        self,
        request: pb.ListActivationsRequest,
        context: grpc.aio.ServicerContext[pb.ListActivationsRequest, pb.ListActivationsResponse],
    ) -> pb.ListActivationsResponse:
        """Lists a page."""
        try:
            limit = _limit(request.page_size)
            if not request.namespace:
                raise invalid("namespace", "name one")
            found = await asyncio.to_thread(
                lambda: self._store().newest(
                    request.namespace,
                    request.action or None,
                    request.page_token or None,
                    limit=limit,
                )
            )
        except SlotwayError as error:
            await abort_with(context, error)
        return pb.ListActivationsResponse(
            activations=[_message(one, with_result=False) for one in found],
            next_page_token=found[-1].id if len(found) == limit else "",
        )


class QueueServer(QueueServiceServicer):
    """Serves from a store that may have to be opened first."""

    def __init__(self, store: Callable[[], Store]) -> None:
        """`store` blocks, and raises SlotwayError if there is none."""
        self._store = store

    async def GetQueue(  # noqa: N802 - gRPC's
        self,
        request: pb.GetQueueRequest,
        context: grpc.aio.ServicerContext[pb.GetQueueRequest, pb.GetQueueResponse],
    ) -> pb.GetQueueResponse:
        """Counts what waits."""
        try:
            waiting = await asyncio.to_thread(
                lambda: self._store().waiting(time.time_ns() // 1_000_000, COUNT_MAX)
            )
            dead = await asyncio.to_thread(lambda: self._store().dead_count())
        except SlotwayError as error:
            await abort_with(context, error)
        response = pb.GetQueueResponse(dead=dead)
        for one in waiting:
            told = response.waiting.add(action=one.action, count=one.count)
            told.since.FromMilliseconds(one.due_at_ms)
        return response

    async def ListDead(  # noqa: N802 - gRPC's
        self,
        request: pb.ListDeadRequest,
        context: grpc.aio.ServicerContext[pb.ListDeadRequest, pb.ListDeadResponse],
    ) -> pb.ListDeadResponse:
        """Lists a page."""
        try:
            limit = _limit(request.page_size)
            found = await asyncio.to_thread(lambda: self._store().dead(request.page_token, limit))
        except SlotwayError as error:
            await abort_with(context, error)
        return pb.ListDeadResponse(
            activations=[_message(one, with_result=False) for one in found],
            next_page_token=found[-1].id if len(found) == limit else "",
        )

    async def Redrive(  # noqa: N802 - gRPC's
        self,
        request: pb.RedriveRequest,
        context: grpc.aio.ServicerContext[pb.RedriveRequest, pb.RedriveResponse],
    ) -> pb.RedriveResponse:
        """Queues anew."""
        try:
            if len(request.activation_ids) > PAGE_MAX:
                raise invalid("activation_ids", f"at most {PAGE_MAX}")
            ids = await asyncio.to_thread(
                lambda: self._store().redrive(
                    time.time_ns() // 1_000_000,
                    list(request.activation_ids),
                    request.action or None,
                )
            )
        except SlotwayError as error:
            await abort_with(context, error)
        return pb.RedriveResponse(activation_ids=ids)


def _limit(page_size: int) -> int:
    if page_size > PAGE_MAX:
        raise invalid("page_size", f"at most {PAGE_MAX}")
    return page_size or PAGE_DEFAULT


def _message(one: Activation, *, with_result: bool) -> pb.Activation:
    message = pb.Activation(
        id=one.id,
        action=one.action,
        state=_STATES[one.state],
        attempts=one.attempts,
        reason=one.reason,
    )
    message.submitted_at.FromMilliseconds(one.submitted_at_ms)
    if one.outcome is not None:
        message.status = _STATUSES[one.outcome.status]
        message.started_at.FromMilliseconds(one.outcome.started_at_ms)
        message.run.FromMicroseconds(one.outcome.run_us)
        message.router = one.outcome.router
        message.container_id = one.outcome.container
        if with_result:
            message.result = one.outcome.result
    if one.finished_at_ms is not None:
        message.finished_at.FromMilliseconds(one.finished_at_ms)
    return message
