"""The client for code without asyncio: `slotway.aio.Client` on an event loop in a thread of its
own.

    with slotway.Client("127.0.0.1:7100") as client:
        print(client.invoke("default/hello", {"name": "Ada"}).result)

One client serves any number of threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from slotway import aio
from slotway.aio import Action, Activation, ActivationRecord, Cluster, Queue, Trouble

_T = TypeVar("_T")


class Client:
    """A connection to a Router, by "host:port"; a context manager, or call `close`. See
    `slotway.aio.Client`."""

    def __init__(self, endpoint: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="slotway-client", daemon=True
        )
        self._thread.start()
        self._client = self._wait(self._connect(endpoint))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls under way in other threads are cancelled."""
        if self._loop.is_closed():
            return
        self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def invoke(
        self,
        action: str,
        arguments: Mapping[str, Any] | bytes = b"",
        *,
        timeout: float | None = None,
        activation_id: str = "",
    ) -> Activation:
        """Runs an action ("namespace/name") once and waits for its result; `timeout` in seconds."""
        return self._wait(
            self._client.invoke(action, arguments, timeout=timeout, activation_id=activation_id)
        )

    def submit(
        self, action: str, arguments: Mapping[str, Any] | bytes = b"", *, key: str = ""
    ) -> str:
        """Has an action run that nobody waits for; the id of its activation, once it is on disk.
        To repeat it safely after an error, give a `key`."""
        return self._wait(self._client.submit(action, arguments, key=key))

    def get_activation(self, id: str) -> ActivationRecord:
        """What became of a submitted invocation so far."""
        return self._wait(self._client.get_activation(id))

    def list_activations(
        self, namespace: str, *, action: str = "", limit: int = 30
    ) -> list[ActivationRecord]:
        """The newest activations of a namespace, or of one of its actions; without results."""
        return self._wait(self._client.list_activations(namespace, action=action, limit=limit))

    def queue(self) -> Queue:
        """What waits to be run now, by action, and how many activations were given up."""
        return self._wait(self._client.queue())

    def list_dead(self, *, limit: int = 30) -> list[ActivationRecord]:
        """The oldest activations that were given up, up to 1000; `reason` says why."""
        return self._wait(self._client.list_dead(limit=limit))

    def redrive(self, ids: Sequence[str] = (), *, action: str = "") -> list[str]:
        """Queues anew what was given up: these, or all of an action, or all; returns which."""
        return self._wait(self._client.redrive(ids, action=action))

    def put_action(
        self,
        name: str,
        code: bytes = b"",
        *,
        concurrency: int = 1,
        timeout: float = 60.0,
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
        """Creates or replaces an action; `timeout` is how long one run may take, `keep_warm` how
        long a container without any share is kept, both in seconds."""
        return self._wait(
            self._client.put_action(
                name,
                code,
                concurrency=concurrency,
                timeout=timeout,
                memory_mib=memory_mib,
                containers_min=containers_min,
                containers_max=containers_max,
                keep_warm=keep_warm,
                kind=kind,
                image=image,
                concurrent=concurrent,
                network=network,
                main=main,
                parameters=parameters,
                expected_revision=expected_revision,
            )
        )

    def replace_action(
        self, action: Action, code: bytes | None = None, *, expected_revision: int | None = None
    ) -> Action:
        """Puts an action as it is given; without `code` its code stays."""
        return self._wait(
            self._client.replace_action(action, code, expected_revision=expected_revision)
        )

    def get_action(self, name: str) -> Action:
        """Reads one action."""
        return self._wait(self._client.get_action(name))

    def get_trouble(self, name: str) -> Trouble | None:
        """What goes wrong with an action's containers at present; None: nothing that is known."""
        return self._wait(self._client.get_trouble(name))

    def get_code(self, name: str) -> bytes:
        """Reads an action's code."""
        return self._wait(self._client.get_code(name))

    def list_actions(self, namespace: str = "") -> list[Action]:
        """All actions of a namespace, or of all namespaces, by name."""
        return self._wait(self._client.list_actions(namespace))

    def delete_action(self, name: str, *, expected_revision: int | None = None) -> None:
        """Deletes an action; its containers drain."""
        self._wait(self._client.delete_action(name, expected_revision=expected_revision))

    def cluster(self, *, with_ended: bool = False) -> Cluster:
        """The cluster as its leader sees it; with the newest containers that ended, if wanted."""
        return self._wait(self._client.cluster(with_ended=with_ended))

    def log(self, container_id: str, *, activation_id: str = "", lines: int = 0) -> list[str]:
        """The last lines that a container printed, or an activation in it; 0 stands for 1000."""
        return self._wait(self._client.log(container_id, activation_id=activation_id, lines=lines))

    def watch(self) -> Iterator[Cluster]:
        """The cluster now, and again after each change; ends with a CallError when the leader
        changes."""
        watching = self._client.watch()
        try:
            while True:
                try:
                    yield self._wait(watching.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            self._wait(watching.aclose())

    @staticmethod
    async def _connect(endpoint: str) -> aio.Client:
        # A channel belongs to the loop that it is made on.
        return aio.Client(endpoint)

    def _wait(self, what: Coroutine[Any, Any, _T]) -> _T:
        future = asyncio.run_coroutine_threadsafe(what, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
