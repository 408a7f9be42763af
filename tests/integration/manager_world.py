"""A Manager with everything real but the engine, and the tools to look at it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc.aio

from slotway.config import EtcdConfig, ManagerConfig
from slotway.drivers.fake import FakeDriver, FakeEngine
from slotway.etcd import Client
from slotway.manager.books import Books
from slotway.manager.server import Manager
from slotway.records import Keys, decode
from slotway.v1 import action_pb2, cluster_pb2, ledger_pb2
from slotway.v1.action_pb2_grpc import ActionServiceStub
from slotway.v1.cluster_pb2_grpc import ClusterServiceStub

WAIT_S = 15.0


class MemoryCode:
    """A code store for tests."""

    def __init__(self) -> None:
        self.codes: dict[str, bytes] = {}

    async def put(self, code: bytes) -> str:
        """Keeps it."""
        name = hashlib.sha256(code).hexdigest()
        self.codes[name] = code
        return name

    async def get(self, sha256: str) -> bytes:
        """Finds it."""
        return self.codes[sha256]


class World:
    """One cluster: Managers come and go, etcd and the engine stay."""

    def __init__(self, client: Client, endpoint: str, cluster: str, folder: Path) -> None:
        self.client, self.endpoint, self.cluster, self.folder = client, endpoint, cluster, folder
        self.keys = Keys(cluster)
        self.engine = FakeEngine()
        self.code = MemoryCode()
        self.driver_of = FakeDriver
        self.address = ""
        self.manager: Manager | None = None
        self.running: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def lead(
        self, client: Client | None = None, **settings: object
    ) -> AsyncIterator[Manager]:
        """A Manager that leads, until the end of the block."""
        async with self.run(client, **settings) as manager:
            self.manager, self.address = manager, manager.address
            await self.until(lambda: self.leads(manager))
            yield manager

    @contextlib.asynccontextmanager
    async def run(self, client: Client | None = None, **settings: object) -> AsyncIterator[Manager]:
        """A Manager that listens."""
        config = ManagerConfig.model_validate(
            {
                "id": "one",
                "cluster": self.cluster,
                "etcd": EtcdConfig(endpoints=(self.endpoint,)),
                "data_dir": self.folder,
                "lease": "2s",
                "period": "50ms",
                **settings,
            }
        )
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        driver = self.driver_of(self.cluster, self.folder / "s", self.engine)
        manager = Manager(config, driver, self.code, client or self.client, listening.set_result)
        running = self.running = asyncio.create_task(manager.run(), name="manager")
        try:
            async with asyncio.timeout(WAIT_S):
                await listening
            yield manager
        finally:
            running.cancel()
            await asyncio.wait({running})

    @staticmethod
    def leads(manager: Manager) -> bool:
        """Whether it has taken over."""
        return manager._loop is not None and manager._loop.ready

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits until a turn of the loop, or a moment, made the condition true."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                loop = self.manager._loop if self.manager else None
                changed = loop.changed.wait() if loop else asyncio.sleep(0.01)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await changed

    @property
    def books(self) -> Books:
        """The leader's view."""
        assert self.manager is not None
        return self.manager.loop().books

    def recorded(self) -> list[ledger_pb2.ContainerRecord]:
        """The containers as the leader has them, with their shares."""
        found = []
        for container in self.books.containers.values():
            record = ledger_pb2.ContainerRecord()
            record.CopyFrom(container.record)
            record.shares.update(self.books.ledger.shares(container.id))
            found.append(record)
        return found

    async def records(self) -> dict[str, ledger_pb2.ContainerRecord]:
        """The containers as etcd has them."""
        listing = await self.client.list(self.keys.containers)
        found = [decode(ledger_pb2.ContainerRecord, i.key, i.value) for i in listing.items]
        return {record.id: record for record in found}

    async def put(
        self,
        name: str = "demo/hello",
        concurrency: int = 1,
        code: bytes = b"def main(args): ...",
        timeout_ms: int = 60_000,
        memory_mib: int = 256,
        expected_revision: int | None = None,
        containers_min: int = 0,
        containers_max: int | None = None,
        keep_warm_ms: int | None = None,
    ) -> action_pb2.Action:
        """Puts an action."""
        limits = action_pb2.Limits(
            concurrency=concurrency,
            memory_mib=memory_mib,
            containers_min=containers_min,
            containers_max=containers_max,
        )
        if keep_warm_ms is not None:
            limits.keep_warm.FromMilliseconds(keep_warm_ms)
        limits.timeout.FromMilliseconds(timeout_ms)
        action = action_pb2.Action(name=name, exec=action_pb2.Exec(kind="python:3"), limits=limits)
        request = action_pb2.PutActionRequest(
            action=action, code=code, expected_revision=expected_revision
        )
        async with grpc.aio.insecure_channel(self.address) as channel:
            return (await ActionServiceStub(channel).PutAction(request, timeout=WAIT_S)).action

    async def delete(self, name: str = "demo/hello") -> None:
        """Deletes an action."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            request = action_pb2.DeleteActionRequest(name=name)
            await ActionServiceStub(channel).DeleteAction(request, timeout=WAIT_S)

    async def show(self) -> cluster_pb2.Cluster:
        """The cluster as the leader tells it."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            request = cluster_pb2.GetClusterRequest()
            return (await ClusterServiceStub(channel).GetCluster(request, timeout=WAIT_S)).cluster
