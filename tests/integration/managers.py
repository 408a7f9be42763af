"""Manager processes with the fake driver, and what a person does to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc.aio

from slotway.etcd import Client, KeyValue
from slotway.records import Keys, decode
from slotway.v1 import cluster_pb2
from slotway.v1.cluster_pb2_grpc import ClusterServiceStub
from slotway.v1.ledger_pb2 import LeaderRecord, MemberRecord
from tests.integration.scripted_router import ScriptedRouter

WAIT_S = 30.0


class ManagerProcess:
    """One `slotway manager`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.process, self.log = name, process, log
        self.address = ""

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; tells nobody."""
        self.process.send_signal(number)


class Managers:
    """Some of one cluster, on an etcd that is there already."""

    def __init__(self, client: Client, endpoint: str, cluster: str, folder: Path) -> None:
        self.client, self.endpoint, self.cluster = client, endpoint, cluster
        self.folder, self.keys = folder, Keys(cluster)
        self.running: dict[str, ManagerProcess] = {}

    async def start(self, name: str, *flags: str) -> ManagerProcess:
        """Starts one, and waits until it is registered."""
        log = self.folder / f"{name}.log"
        left, _ = await self.client.get(self.keys.member(name))  # by one that was killed
        environment = {key: value for key, value in os.environ.items() if "SLOTWAY" not in key}
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "slotway.cli", "manager", "--id", name),
                *("--cluster", self.cluster, "--etcd", self.endpoint, "--driver", "fake"),
                *("--data-dir", str(self.folder / "data"), *flags),
                env={**environment, "SLOTWAY_MANAGER_RUN_DIR": str(self.folder / "run")},
                stdout=out,
                stderr=out,
            )
        manager = self.running[name] = ManagerProcess(name, process, log)
        async with asyncio.timeout(WAIT_S):
            while not manager.address:
                assert process.returncode is None, log.read_text()
                item, _ = await self.client.get(self.keys.member(name))
                if item is not None and (left is None or item.mod_revision > left.mod_revision):
                    record = decode(MemberRecord, item.key, item.value)
                    manager.address = record.address
                await asyncio.sleep(0.02)
        return manager

    async def stop(self) -> None:
        """Kills all."""
        for manager in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                manager.process.kill()
            await manager.process.wait()

    async def leader(self) -> tuple[ManagerProcess | None, KeyValue | None]:
        """Who is on the leader key."""
        item, _ = await self.client.get(self.keys.leader)
        if item is None:
            return None, None
        record = decode(LeaderRecord, item.key, item.value)
        return self.running.get(record.id), item

    async def led(self, standbys: int = 1) -> tuple[ManagerProcess, list[ManagerProcess]]:
        """The leader, once so many standbys are ready; and the others."""
        async with asyncio.timeout(WAIT_S):
            while True:
                leader, _ = await self.leader()
                if leader is not None:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        shown = await self.show(leader)
                        if sum(one.ready for one in shown.standbys) >= standbys:
                            others = [one for one in self.running.values() if one is not leader]
                            return leader, others
                await asyncio.sleep(0.02)

    @staticmethod
    async def show(manager: ManagerProcess) -> cluster_pb2.Cluster:
        """The cluster as this Manager tells it."""
        async with grpc.aio.insecure_channel(manager.address) as channel:
            request = cluster_pb2.GetClusterRequest()
            return (await ClusterServiceStub(channel).GetCluster(request, timeout=5)).cluster

    async def shown(self, manager: ManagerProcess) -> AsyncIterator[cluster_pb2.Cluster]:
        """The same, again and again."""
        while True:
            yield await self.show(manager)
            await asyncio.sleep(0.02)


class Everywhere:
    """A Router with a stream to each Manager, as two scripted ones with one memory."""

    def __init__(self, name: str, managers: Sequence[ManagerProcess]) -> None:
        self.streams = [ScriptedRouter(name, one.address) for one in managers]
        for other in self.streams[1:]:
            first = self.streams[0]
            other.waiting, other.held, other.running = first.waiting, first.held, first.running
            other.action_of = first.action_of

    def open(self) -> None:
        """Opens every stream that is not open."""
        for stream in self.streams:
            if stream._task is None or stream._task.done():
                stream.open()

    async def close(self) -> None:
        """Breaks all."""
        for stream in self.streams:
            await stream.close()

    async def share(self, action: str) -> float:
        """Demands slots of the action until one is held; returns the seconds that took."""
        began = time.monotonic()
        have = self.streams[0].total(action)
        self.streams[0].waiting[action] = 1
        asking = asyncio.create_task(self._ask())
        waiting = [
            asyncio.create_task(stream.until(lambda: self.streams[0].total(action) > have))
            for stream in self.streams
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert self.streams[0].total(action) > have, "no share came"
            return time.monotonic() - began
        finally:
            for task in (asking, *waiting):
                task.cancel()
            await asyncio.wait([asking, *waiting])

    async def _ask(self) -> None:
        while True:  # demand is level-triggered: a Router says it again each period
            for stream in self.streams:
                stream.report()
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def managers(
    client: Client, endpoint: str, cluster: str, folder: Path, *names: str
) -> AsyncIterator[Managers]:
    """These Managers, killed at the end."""
    world = Managers(client, endpoint, cluster, folder)
    try:
        await asyncio.gather(*(world.start(name) for name in names))
        yield world
    finally:
        await world.stop()
