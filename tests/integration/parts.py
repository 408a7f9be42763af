"""A whole cluster as real processes, part by part: what `slotway dev` starts, but each part can be
killed and started anew."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from slotway.aio import Client
from slotway.cli.child import Child
from slotway.cli.devcluster import end_containers
from slotway.drivers import open_driver
from slotway.drivers.base import DriverError
from slotway.drivers.docker.options import dev_subnet
from slotway.errors import SlotwayError
from slotway.etcd import Access
from slotway.etcd import Client as Etcd
from slotway.etcd.server import EtcdServer, free_port
from slotway.records import Keys
from slotway.rundir import run_dir
from slotway.v1.cluster_pb2 import Cluster, RouterStatus

READY_S = 60.0


class Parts:
    """etcd, Managers and Routers of one cluster. Routers keep their ports over restarts."""

    def __init__(
        self,
        folder: Path,
        cluster: str,
        *,
        driver: str = "process",
        managers: int = 1,
        routers: int = 3,
        manager_flags: Sequence[str] = (),
        router_flags: Sequence[str] = (),
    ) -> None:
        self.folder, self.cluster, self.driver = folder, cluster, driver
        self.docker = {"subnet": dev_subnet(cluster)} if driver == "docker" else {}
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        self.etcd = EtcdServer(
            folder / "etcd", self.logs / "etcd.log", options=("--log-level=warn",)
        )
        shared = ["--cluster", cluster, "--etcd", self.etcd.endpoint, "--log-format", "console"]
        subnet = ["--docker-subnet", *self.docker.values()] if self.docker else []
        self.managers = [
            self._child(
                f"manager-{number}",
                *("manager", "--id", f"manager-{number}", "--listen", "127.0.0.1:0"),
                *("--driver", driver, "--data-dir", str(self.data_dir), *subnet),
                *(*manager_flags, *shared),
            )
            for number in range(1, managers + 1)
        ]
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in range(routers)]
        self.routers = [
            self._child(
                f"router-{number}",
                *("router", "--name", f"router-{number}", "--listen", address),
                *(*router_flags, *shared),
            )
            for number, address in enumerate(self.addresses, 1)
        ]
        self.clients: list[Client] = []

    def _child(self, name: str, *arguments: str) -> Child:
        return Child(name, arguments, self.logs / f"{name}.log")

    @property
    def data_dir(self) -> Path:
        """The Managers' own."""
        return self.folder / "manager"

    async def __aenter__(self) -> Parts:
        try:
            await self.etcd.start()
            for child in (*self.managers, *self.routers):
                await child.start()
            self.clients = [Client(address) for address in self.addresses]
            starting = asyncio.create_task(self.until_live())
            while not (await asyncio.wait([starting], timeout=0.2))[0]:
                for child in (*self.managers, *self.routers):
                    assert not child.ended, child.obituary()
            await starting
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def until_live(self) -> None:
        """Waits until every Router has said Hello to one leader."""
        wanted = {f"router-{number}" for number in range(1, len(self.routers) + 1)}
        async with asyncio.timeout(READY_S):
            while True:
                with contextlib.suppress(SlotwayError):
                    live = RouterStatus.STATE_LIVE
                    shown = await self.show()
                    if wanted <= {one.name for one in shown.routers if one.state == live}:
                        for client in self.clients:  # each has its connection
                            await client.cluster()
                        return
                await asyncio.sleep(0.05)

    async def show(self) -> Cluster:
        """The cluster as its leader tells any Router."""
        for client in self.clients[:-1]:
            with contextlib.suppress(SlotwayError):
                return await client.cluster()
        return await self.clients[-1].cluster()

    async def leader(self) -> Child:
        """The leading Manager's process."""
        name = (await self.show()).leader
        return next(child for child in self.managers if child.name == name)

    async def revision(self) -> int:
        """etcd's newest: every write of the ledger makes one."""
        async with Etcd(Access((self.etcd.endpoint,))) as etcd:
            return (await etcd.list(Keys(self.cluster).containers)).revision

    async def _stop(self) -> None:
        hurry = asyncio.Event()
        for client in self.clients:
            await client.close()
        await asyncio.gather(*(child.stop(hurry, 10) for child in self.routers))
        await asyncio.gather(*(child.stop(hurry, 10) for child in self.managers))
        if self.driver != "fake" and self.data_dir.exists():
            sockets = run_dir(self.data_dir)
            options = open_driver(self.driver, self.cluster, self.data_dir, sockets, self.docker)
            left = 0
            try:
                left = await end_containers(options)
            except DriverError as error:
                # Engines have been seen to count endpoints of containers that are long gone.
                print(f"what is left of the cluster is not removed: {error}")
            assert not left, f"{left} containers could not be ended"
            with contextlib.suppress(OSError):
                sockets.rmdir()
        await self.etcd.stop()
