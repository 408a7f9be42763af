"""The asyncio client: a few lines over the stubs.

    async with slotway.aio.Client("127.0.0.1:7100") as client:
        activation = await client.invoke("default/hello", {"name": "Ada"})
        print(activation.result)

Any Router's address does everything. What Slotway answers with an error is raised as `CallError`;
what the action itself raised, as `ApplicationError`. Nothing is tried twice here: an action may
have run.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from slotway.errors import SlotwayError
from slotway.status import CallError, from_rpc_error
from slotway.v1 import action_pb2 as _actions
from slotway.v1 import activation_pb2 as _activations
from slotway.v1 import cluster_pb2 as _cluster
from slotway.v1.action_pb2 import Action, Exec, Limits, Trouble
from slotway.v1.action_pb2_grpc import ActionServiceStub
from slotway.v1.activation_pb2 import Activation as ActivationRecord
from slotway.v1.activation_pb2 import GetQueueResponse as Queue
from slotway.v1.activation_pb2_grpc import ActivationServiceStub, QueueServiceStub
from slotway.v1.cluster_pb2 import Cluster
from slotway.v1.cluster_pb2_grpc import ClusterServiceStub
from slotway.v1.router_pb2 import InvokeRequest, SubmitRequest
from slotway.v1.router_pb2_grpc import RouterServiceStub

__all__ = [
    "Action",
    "Activation",
    "ActivationRecord",
    "ApplicationError",
    "CallError",
    "Client",
    "Cluster",
    "Exec",
    "Limits",
    "Queue",
    "Trouble",
]

MESSAGE_BYTES_MAX = 24 * 1024 * 1024
TIMEOUT_SECONDS = 30.0
"""For calls that only ask or change the cluster."""
INVOKE_TIMEOUT_SECONDS = 660.0
"""For an invocation whose caller names no timeout: the longest timeout of an action, and a minute
to wait."""
_PAGE_SIZE = 1000
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class Activation:
    """One run of an action that succeeded."""

    id: str
    payload: bytes
    """What the action returned, as it came from the container: a JSON object."""
    container_id: str
    wait: timedelta
    """Waiting for a slot."""
    run: timedelta
    """In the container."""

    @property
    def result(self) -> dict[str, Any]:
        """What the action returned."""
        value: dict[str, Any] = json.loads(self.payload)
        return value


class ApplicationError(SlotwayError):
    """The action ran, and failed by its own fault.

    `error` is what it answered, usually {"error": …}; `status` the HTTP status of its container.
    """

    reason = "APPLICATION_ERROR"

    def __init__(self, error: dict[str, Any], status: int, activation_id: str):
        super().__init__(str(error.get("error", error)))
        self.error = error
        self.status = status
        self.activation_id = activation_id


class Client:
    """A connection to a Router, by "host:port"; an async context manager, or call `close`.

    Every method raises `CallError` with `code`, `reason` (a name of `ErrorReason`), `metadata` and
    `retry_delay`. All timeouts are in seconds. Cancelling a call frees its place in a queue, but
    does not stop code that has started.
    """

    def __init__(self, endpoint: str) -> None:
        limits = [
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        self._channel = grpc.aio.insecure_channel(endpoint, options=limits)
        self._router = RouterServiceStub(self._channel)
        self._actions = ActionServiceStub(self._channel)
        self._cluster = ClusterServiceStub(self._channel)
        self._activations = ActivationServiceStub(self._channel)
        self._queue = QueueServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        await self._channel.close()

    async def invoke(
        self,
        action: str,
        arguments: Mapping[str, Any] | bytes = b"",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - gRPC's deadline crosses to the Router
        activation_id: str = "",
    ) -> Activation:
        """Runs an action ("namespace/name") once and waits for its result.

        `arguments` is a mapping that JSON can hold, or the bytes of a JSON object.
        ApplicationError if the action answers with an error of its own.
        """
        payload = arguments if isinstance(arguments, bytes) else json.dumps(arguments).encode()
        request = InvokeRequest(action=action, payload=payload, activation_id=activation_id)
        async with _translated():
            response = await self._router.Invoke(
                request,
                timeout=INVOKE_TIMEOUT_SECONDS if timeout is None else timeout,
                metadata=_caller(),
            )
        if response.WhichOneof("outcome") == "application_error":
            failed = response.application_error
            raise ApplicationError(json.loads(failed.error), failed.status, response.activation_id)
        return Activation(
            response.activation_id,
            response.result,
            response.container_id,
            response.timing.wait.ToTimedelta(),
            response.timing.run.ToTimedelta(),
        )

    async def submit(
        self,
        action: str,
        arguments: Mapping[str, Any] | bytes = b"",
        *,
        key: str = "",
        timeout: float = TIMEOUT_SECONDS,  # noqa: ASYNC109 - gRPC's deadline crosses to the Router
    ) -> str:
        """Has an action run that nobody waits for; the id of its activation, once it is on disk.

        It runs at least once, and one outcome is recorded: see `get_activation`. After an error it
        may have been accepted all the same; to repeat it safely, give a `key`: within the action,
        the same key is the same activation for at least a day.
        """
        payload = arguments if isinstance(arguments, bytes) else json.dumps(arguments).encode()
        request = SubmitRequest(action=action, payload=payload, idempotency_key=key)
        async with _translated():
            response = await self._router.Submit(request, timeout=timeout, metadata=_caller())
        return response.activation_id

    async def get_activation(self, id: str) -> ActivationRecord:
        """What became of a submitted invocation so far."""
        request = _activations.GetActivationRequest(activation_id=id)
        async with _translated():
            response = await self._activations.GetActivation(request, timeout=TIMEOUT_SECONDS)
        return response.activation

    async def list_activations(
        self, namespace: str, *, action: str = "", limit: int = 30
    ) -> list[ActivationRecord]:
        """The newest activations of a namespace, or of one of its actions, without results; up to
        1000."""
        request = _activations.ListActivationsRequest(
            namespace=namespace, action=action, page_size=limit
        )
        async with _translated():
            response = await self._activations.ListActivations(request, timeout=TIMEOUT_SECONDS)
        return list(response.activations)

    async def queue(self) -> Queue:
        """What waits to be run now, by action, and how many activations were given up."""
        async with _translated():
            return await self._queue.GetQueue(
                _activations.GetQueueRequest(), timeout=TIMEOUT_SECONDS
            )

    async def list_dead(self, *, limit: int = 30) -> list[ActivationRecord]:
        """The oldest activations that were given up, up to 1000; `reason` says why."""
        request = _activations.ListDeadRequest(page_size=limit)
        async with _translated():
            response = await self._queue.ListDead(request, timeout=TIMEOUT_SECONDS)
        return list(response.activations)

    async def redrive(self, ids: Sequence[str] = (), *, action: str = "") -> list[str]:
        """Queues anew what was given up: these, or all of an action, or all; returns which."""
        done: list[str] = []
        while True:
            request = _activations.RedriveRequest(activation_ids=ids, action=action)
            async with _translated():
                response = await self._queue.Redrive(request, timeout=TIMEOUT_SECONDS)
            done += response.activation_ids
            if len(response.activation_ids) < _PAGE_SIZE or ids:
                return done

    async def put_action(
        self,
        name: str,
        code: bytes = b"",
        *,
        concurrency: int = 1,
        timeout: float = 60.0,  # noqa: ASYNC109 - the action's own
        memory_mib: int = 256,
        containers_min: int = 0,
        containers_max: int | None = None,
        keep_warm: float | None = None,
        kind: str = "python:3",
        image: str = "",
        concurrent: bool = False,
        network: bool = False,
        main: str = "main",
        parameters: Mapping[str, Any] | None = None,
        expected_revision: int | None = None,
    ) -> Action:
        """Creates or replaces an action; returns it with its revision.

        `code` is a source file, or a zip archive with a __main__.py; `timeout` is how long one run
        may take; `parameters` are default arguments. There are `containers_min` to
        `containers_max` containers; one without any share is kept for `keep_warm` seconds. For
        `expected_revision` see `replace_action`.
        `image` is run instead of a runtime of ours, and can do without code; `concurrent` insists
        on a concurrency above 1 though its runtime does not declare that it can; `network` lets
        it open connections to other hosts.
        """
        action = Action(
            name=name,
            exec=Exec(
                kind="blackbox" if image else kind,
                main=main,
                binary=code.startswith(_ZIP),
                image=image,
                concurrent=concurrent,
            ),
            limits=Limits(
                concurrency=concurrency,
                memory_mib=memory_mib,
                containers_min=containers_min,
                containers_max=containers_max,
            ),
            parameters=json.dumps(dict(parameters or {})).encode(),
            network=network,
        )
        action.limits.timeout.FromMilliseconds(round(timeout * 1000))
        if keep_warm is not None:
            action.limits.keep_warm.FromMilliseconds(round(keep_warm * 1000))
        given = None if image and not code else code
        return await self.replace_action(action, given, expected_revision=expected_revision)

    async def replace_action(
        self, action: Action, code: bytes | None = None, *, expected_revision: int | None = None
    ) -> Action:
        """Puts an action as it is given; returns it with its new revision.

        Without `code` the code of the present revision is kept. `expected_revision` is the revision
        that is to be replaced, 0 if the action must not exist yet; None replaces whatever is there.
        """
        request = _actions.PutActionRequest(
            action=action, code=code, expected_revision=expected_revision
        )
        async with _translated():
            return (await self._actions.PutAction(request, timeout=TIMEOUT_SECONDS)).action

    async def get_action(self, name: str) -> Action:
        """Reads one action."""
        request = _actions.GetActionRequest(name=name)
        async with _translated():
            return (await self._actions.GetAction(request, timeout=TIMEOUT_SECONDS)).action

    async def get_trouble(self, name: str) -> Trouble | None:
        """What goes wrong with an action's containers at present; None: nothing that is known."""
        request = _actions.GetActionRequest(name=name)
        async with _translated():
            response = await self._actions.GetAction(request, timeout=TIMEOUT_SECONDS)
        return response.trouble if response.HasField("trouble") else None

    async def get_code(self, name: str) -> bytes:
        """Reads an action's code."""
        request = _actions.GetActionRequest(name=name, with_code=True)
        async with _translated():
            return (await self._actions.GetAction(request, timeout=TIMEOUT_SECONDS)).code

    async def list_actions(self, namespace: str = "") -> list[Action]:
        """All actions of a namespace, or of all namespaces, by name."""
        request = _actions.ListActionsRequest(namespace=namespace, page_size=_PAGE_SIZE)
        found: list[Action] = []
        while True:
            async with _translated():
                page = await self._actions.ListActions(request, timeout=TIMEOUT_SECONDS)
            found.extend(page.actions)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def delete_action(self, name: str, *, expected_revision: int | None = None) -> None:
        """Deletes an action; its containers drain."""
        request = _actions.DeleteActionRequest(name=name, expected_revision=expected_revision)
        async with _translated():
            await self._actions.DeleteAction(request, timeout=TIMEOUT_SECONDS)

    async def cluster(self, *, with_ended: bool = False) -> Cluster:
        """The cluster as its leader sees it; with the newest containers that ended, if wanted."""
        request = _cluster.GetClusterRequest(with_ended=with_ended)
        async with _translated():
            response = await self._cluster.GetCluster(request, timeout=TIMEOUT_SECONDS)
        return response.cluster

    async def log(self, container_id: str, *, activation_id: str = "", lines: int = 0) -> list[str]:
        """The last lines that a container printed, or an activation in it; 0 stands for 1000."""
        request = _cluster.GetContainerLogRequest(
            container_id=container_id, activation_id=activation_id, lines=lines
        )
        async with _translated():
            answer = await self._cluster.GetContainerLog(request, timeout=TIMEOUT_SECONDS)
        return list(answer.lines)

    async def watch(self) -> AsyncGenerator[Cluster, None]:
        """The cluster now, and again after each change; ends with a CallError when the leader
        changes."""
        async with _translated():
            async for response in self._cluster.WatchCluster(_cluster.WatchClusterRequest()):
                yield response.cluster


def _caller() -> tuple[tuple[str, str], ...]:
    """Says of a request that it comes from within an action."""
    container = os.environ.get("SLOTWAY_CONTAINER")
    return (("slotway-caller", container),) if container else ()


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
