"""A Router's services without a cluster behind them: actions live in a dictionary, and `Invoke`
answers by name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
from google.protobuf import duration_pb2, timestamp_pb2

from slotway.errors import SlotwayError
from slotway.status import abort_with, invalid
from slotway.v1 import action_pb2 as actions
from slotway.v1 import activation_pb2 as activations
from slotway.v1 import cluster_pb2 as clusters
from slotway.v1 import ledger_pb2 as ledger
from slotway.v1 import manager_pb2 as manager
from slotway.v1 import router_pb2 as router
from slotway.v1.action_pb2_grpc import (
    ActionServiceServicer,
    add_ActionServiceServicer_to_server,
)
from slotway.v1.activation_pb2_grpc import (
    ActivationServiceServicer,
    QueueServiceServicer,
    add_ActivationServiceServicer_to_server,
    add_QueueServiceServicer_to_server,
)
from slotway.v1.cluster_pb2_grpc import (
    ClusterServiceServicer,
    add_ClusterServiceServicer_to_server,
)
from slotway.v1.router_pb2_grpc import (
    RouterServiceServicer,
    add_RouterServiceServicer_to_server,
)

CLUSTER = clusters.Cluster(
    name="test",
    term=manager.Term(epoch=1, revision=42),
    leader="m1",
    leader_address="127.0.0.1:7000",
    ledger_revision=99,
    actions=1,
    routers=[
        clusters.RouterStatus(
            name="r1",
            incarnation="inc-1",
            address="127.0.0.1:7100",
            state=clusters.RouterStatus.STATE_LIVE,
            demand=[manager.ActionDemand(action="default/hello", waiting=3)],
        ),
        clusters.RouterStatus(incarnation="inc-2", state=clusters.RouterStatus.STATE_AWAY),
    ],
    containers=[
        clusters.ContainerStatus(
            record=ledger.ContainerRecord(
                id="c-1",
                action="default/hello",
                revision=7,
                state=ledger.CONTAINER_STATE_READY,
                capacity=10,
                shares={"inc-1": 6, "inc-2": 1},
                address="unix:/run/c-1.sock",
                driver="process",
            )
        )
    ],
)

ENDED = [
    clusters.EndedContainer(
        id="c-9",
        action="default/hello",
        revision=7,
        reason="it ended by itself: SIGKILL",
        crashed=True,
        served=duration_pb2.Duration(nanos=500_000_000),
        ended_at=timestamp_pb2.Timestamp(seconds=1),
    ),
    clusters.EndedContainer(
        id="c-8",
        action="a/b",
        revision=2,
        reason="it was idle",
        ended_at=timestamp_pb2.Timestamp(seconds=2),
    ),
]


ACTIVATION = activations.Activation(
    id="0190-7",
    action="default/hello",
    state=activations.Activation.STATE_DONE,
    status=activations.Activation.STATUS_SUCCESS,
    attempts=2,
    submitted_at=timestamp_pb2.Timestamp(seconds=1),
    started_at=timestamp_pb2.Timestamp(seconds=2),
    finished_at=timestamp_pb2.Timestamp(seconds=3),
    run=duration_pb2.Duration(nanos=5_000_000),
    router="r1",
    container_id="c-1",
    result=b'{"hello": "Ada"}',
)


class Services(
    RouterServiceServicer,
    ActionServiceServicer,
    ActivationServiceServicer,
    QueueServiceServicer,
    ClusterServiceServicer,
):
    """What tests look at: `invoked`, `submitted` and `puts` as they came in."""

    def __init__(self) -> None:
        self.actions: dict[str, tuple[actions.Action, bytes]] = {}
        self.invoked: list[router.InvokeRequest] = []
        self.submitted: list[router.SubmitRequest] = []
        self.puts: list[actions.PutActionRequest] = []
        self.troubles: dict[str, actions.Trouble] = {}
        self.revision = 0
        self.pages = 0
        self.timeout = 0.0
        self.before_put: list[bytes] = []
        self.address = ""

    async def Submit(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.submitted.append(request)
        return router.SubmitResponse(activation_id=f"id-{len(self.submitted)}")

    async def Invoke(self, request: Any, context: Any) -> router.InvokeResponse:  # noqa: N802
        self.invoked.append(request)
        self.timeout = context.time_remaining()
        response = router.InvokeResponse(
            activation_id=request.activation_id or "0190-1", container_id="c-1"
        )
        response.timing.run.FromMilliseconds(12)
        match request.action.partition("/")[2]:
            case "raises":
                error = json.dumps({"error": "ValueError: no"}).encode()
                response.application_error.CopyFrom(
                    router.ApplicationError(error=error, status=502)
                )
            case "busy":
                await abort_with(
                    context,
                    SlotwayError(
                        "the wait queue is full",
                        reason="QUEUE_FULL",
                        retry_delay=timedelta(milliseconds=1500),
                    ),
                )
            case "late":
                await asyncio.Event().wait()
            case "hello":
                response.result = request.payload or b"{}"
            case _:
                await self._unknown(context, request.action)
        return response

    async def PutAction(self, request: Any, context: Any) -> actions.PutActionResponse:  # noqa: N802
        self.puts.append(request)
        for code in self.before_put:
            self._put(request.action, code)
        self.before_put.clear()
        known = self.actions.get(request.action.name)
        revision = known[0].revision if known else 0
        if request.HasField("expected_revision") and request.expected_revision != revision:
            await abort_with(
                context,
                SlotwayError(
                    f"{request.action.name} has revision {revision}",
                    reason="REVISION_CONFLICT",
                    metadata={"revision": str(revision)},
                ),
            )
        if request.action.limits.concurrency > 1000:
            await abort_with(context, invalid("limits.concurrency", "is above 1000"))
        code = request.code if request.HasField("code") else known[1] if known else b""
        return actions.PutActionResponse(action=self._put(request.action, code))

    def _put(self, action: actions.Action, code: bytes) -> actions.Action:
        self.revision += 1
        put = actions.Action()
        put.CopyFrom(action)
        put.revision, put.exec.code_bytes = self.revision, len(code)
        put.updated_at.FromMilliseconds(1_700_000_000_000)
        self.actions[put.name] = (put, code)
        return put

    async def GetAction(self, request: Any, context: Any) -> actions.GetActionResponse:  # noqa: N802
        if request.name not in self.actions:
            await self._unknown(context, request.name)
        action, code = self.actions[request.name]
        return actions.GetActionResponse(
            action=action,
            code=code if request.with_code else None,
            trouble=self.troubles.get(request.name),
        )

    async def ListActions(self, request: Any, context: Any) -> actions.ListActionsResponse:  # noqa: N802
        self.pages += 1
        names = sorted(name for name in self.actions if name.startswith(request.namespace or ""))
        later = [name for name in names if name > request.page_token]
        page = later[:2]
        return actions.ListActionsResponse(
            actions=[self.actions[name][0] for name in page],
            next_page_token=page[-1] if len(later) > len(page) else "",
        )

    async def DeleteAction(self, request: Any, context: Any) -> actions.DeleteActionResponse:  # noqa: N802
        if self.actions.pop(request.name, None) is None:
            await self._unknown(context, request.name)
        return actions.DeleteActionResponse()

    async def GetCluster(self, request: Any, context: Any) -> clusters.GetClusterResponse:  # noqa: N802
        cluster = clusters.Cluster()
        cluster.CopyFrom(CLUSTER)
        cluster.ended.extend(ENDED if request.with_ended else ())
        return clusters.GetClusterResponse(cluster=cluster)

    async def GetContainerLog(  # noqa: N802
        self, request: Any, context: Any
    ) -> clusters.GetContainerLogResponse:
        lines = [f"{request.container_id} {request.activation_id} {request.lines}", "[ä]"]
        return clusters.GetContainerLogResponse(lines=lines)

    async def WatchCluster(self, request: Any, context: Any) -> Any:  # noqa: N802
        for _ in range(3):
            yield clusters.WatchClusterResponse(cluster=CLUSTER)

    async def GetActivation(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.activation_id != ACTIVATION.id:
            why = f"no activation has the id {request.activation_id!r}"
            await abort_with(context, SlotwayError(why, reason="ACTIVATION_NOT_FOUND"))
        return activations.GetActivationResponse(activation=ACTIVATION)

    async def ListActivations(self, request: Any, context: Any) -> Any:  # noqa: N802
        found = [ACTIVATION] if request.namespace == "default" else []
        return activations.ListActivationsResponse(activations=found)

    async def GetQueue(self, request: Any, context: Any) -> Any:  # noqa: N802
        response = activations.GetQueueResponse(dead=1)
        response.waiting.add(action="default/hello", count=3).since.FromMilliseconds(1000)
        return response

    async def ListDead(self, request: Any, context: Any) -> Any:  # noqa: N802
        dead = activations.Activation(id="0190-9", action="a/b", attempts=5, reason="lost")
        return activations.ListDeadResponse(activations=[dead])

    async def Redrive(self, request: Any, context: Any) -> Any:  # noqa: N802
        wanted = request.activation_ids or ["0190-9"]
        return activations.RedriveResponse(activation_ids=[i for i in wanted if i == "0190-9"])

    async def _unknown(self, context: Any, name: str) -> None:
        await abort_with(context, SlotwayError(f"no action {name}", reason="ACTION_NOT_FOUND"))

    async def serve(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_RouterServiceServicer_to_server(self, server)
        add_ActionServiceServicer_to_server(self, server)
        add_ActivationServiceServicer_to_server(self, server)
        add_QueueServiceServicer_to_server(self, server)
        add_ClusterServiceServicer_to_server(self, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        return server


@contextlib.contextmanager
def services_in_a_thread() -> Iterator[Services]:
    """For tests that have no event loop of their own."""
    services, loop = Services(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(services.serve(), loop).result(10)
    try:
        yield services
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
