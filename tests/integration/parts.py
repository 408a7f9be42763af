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
from slotway.etcd.servers import start_all
from slotway.records import Keys
from slotway.rundir import run_dir
from slotway.v1.cluster_pb2 import Cluster, RouterStatus

READY_S = 60.0
SHOW_S = 5.0
"""For one Router to answer, before the next one is asked."""


class Places:
    """Where each part lives: on the loopback interface, like everything else."""

    here = "127.0.0.1"
    """Where whoever starts the parts can be reached by them."""

    def host(self, name: str) -> str:
        """The address that the part of this name has."""
        return "127.0.0.1"

    def command(self, name: str) -> list[str]:
        """The command that starts it there: it becomes the one after it."""
        return []


class Parts:
    """etcd, Managers and Routers of one cluster. All but Managers keep their ports over restarts.

    `places` may put each part somewhere of its own.
    """

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
        etcd_members: int = 1,
        places: Places | None = None,
    ) -> None:
        self.places = places or Places()
        self.folder, self.cluster, self.driver = folder, cluster, driver
        self.docker = {"subnet": dev_subnet(cluster)} if driver == "docker" else {}
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        self.etcds = self._etcds(etcd_members)
        self.endpoints = tuple(one.endpoint for one in self.etcds)
        shared = ["--cluster", cluster, "--etcd", ",".join(self.endpoints)]
        shared += ["--log-format", "console"]
        subnet = ["--docker-subnet", *self.docker.values()] if self.docker else []
        self.managers = [
            self._child(
                f"manager-{number}",
                *("manager", "--id", f"manager-{number}"),
                *self._listen(f"manager-{number}", 0),
                *("--driver", driver, "--data-dir", str(self.data_dir), *subnet),
                *(*manager_flags, *shared),
            )
            for number in range(1, managers + 1)
        ]
        ports = {f"router-{number}": free_port() for number in range(1, routers + 1)}
        self.addresses = [f"{self.places.host(name)}:{port}" for name, port in ports.items()]
        self.routers = [
            self._child(
                name, "router", "--name", name, *self._listen(name, port), *router_flags, *shared
            )
            for name, port in ports.items()
        ]
        self.clients: list[Client] = []

    def _etcds(self, members: int) -> list[EtcdServer]:
        names = [f"etcd-{number}" for number in range(1, members + 1)]
        urls = {name: f"http://{self.places.host(name)}" for name in names}
        peers = {name: f"{url}:{free_port()}" for name, url in urls.items()}
        return [
            EtcdServer(
                self.folder / name,
                self.logs / f"{name}.log",
                options=("--log-level=warn",),
                endpoint=f"{urls[name]}:{free_port()}",
                name=name,
                peers=peers,
                place=self.places.command(name),
            )
            for name in names
        ]

    def _listen(self, name: str, port: int) -> list[str]:
        host = self.places.host(name)
        insecure = [] if host == "127.0.0.1" else ["--insecure"]
        return ["--listen", f"{host}:{port}", *insecure]

    def _child(self, name: str, *arguments: str) -> Child:
        place = self.places.command(name)
        return Child(name, arguments, self.logs / f"{name}.log", place)

    @property
    def data_dir(self) -> Path:
        """The Managers' own."""
        return self.folder / "manager"

    async def __aenter__(self) -> Parts:
        try:
            await start_all(self.etcds)
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
            with contextlib.suppress(SlotwayError, TimeoutError):
                async with asyncio.timeout(SHOW_S):
                    return await client.cluster()
        return await self.clients[-1].cluster()

    async def leader(self) -> Child:
        """The leading Manager's process."""
        name = (await self.show()).leader
        return next(child for child in self.managers if child.name == name)

    async def revision(self) -> int:
        """etcd's newest: every write of the ledger makes one."""
        async with Etcd(Access(self.endpoints)) as etcd:
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
        await asyncio.gather(*(one.stop() for one in self.etcds))
