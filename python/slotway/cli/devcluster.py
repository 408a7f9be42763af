"""The cluster of `slotway dev`: etcd, Managers and Routers as children of this process.

It decides nothing that the commands do not decide: it starts them, waits until every Router has a
session with the leader, writes down where they are, and stops them in order. What dies is told and
not started again: the rest of the cluster has to bear it, and shows how it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import grpc.aio

from slotway.cli.child import Child
from slotway.cli.devfile import DevFile
from slotway.drivers import open_driver
from slotway.drivers.base import Driver
from slotway.errors import SlotwayError
from slotway.etcd import Access, Client, EtcdUnavailable
from slotway.etcd.patience import Patience
from slotway.etcd.servers import etcd_servers, start_all
from slotway.members import managers_now
from slotway.records import Keys
from slotway.rundir import run_dir
from slotway.v1 import cluster_pb2, cluster_pb2_grpc

READY_S = 60.0
ROUTER_STOP_S = 45.0
MANAGER_STOP_S = 10.0
CONTAINERS_STOP_S = 30.0
POLL_S = 0.1
IP_FREEBIND = 15
"""Of Linux; Python's `socket` has no name for it."""

T = TypeVar("T")
Deaths: TypeAlias = Mapping["asyncio.Task[int]", Child]
"""For each child the task that waits for its end."""


class DevError(SlotwayError):
    """The cluster could not be started; the message has the end of the log that tells why."""


@dataclass(frozen=True)
class DevOptions:
    """What was asked for."""

    data_dir: Path
    cluster: str
    access: Access
    """etcd; no endpoints: one of its own."""
    etcd_members: int
    """Of its own."""
    routers: int
    managers: int
    port: int
    """Of the first Router; 0: any that is free."""
    driver: str
    docker: Mapping[str, Any]
    """For the Docker driver: fields of its `DockerOptions`."""
    manager_flags: Sequence[str]
    """More flags for each Manager."""
    flags: Sequence[str]
    """More flags for all children."""
    keep: bool
    """Leave the containers running."""
    actions_host: str = ""
    """Where Routers listen for actions; empty: as they are configured."""


class DevCluster:
    """One run of `slotway dev`. `stop` and `hurry` are set from outside, by signals."""

    def __init__(self, options: DevOptions, say: Callable[[str], None]):
        self.options = options
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self._say = say
        self._logs = options.data_dir / "logs"
        self._managers: list[Child] = []
        self._routers: list[Child] = []
        self._pids: dict[str, int] = {}
        self._actions: socket.socket | None = None
        """Bound to where Routers listen for actions."""

    async def run(self) -> bool:
        """Runs until `stop` is set; True if nothing died meanwhile. Raises SlotwayError."""
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            async with self._etcd() as access:
                try:
                    return await self._serve(access)
                finally:
                    await self._stop_children()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The data folder belongs to one `dev` at a time."""
        with (self.options.data_dir / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                lock.seek(0)
                raise DevError(
                    f"another `slotway dev` (process {lock.read().strip()}) uses "
                    f"{self.options.data_dir}: stop it, or choose another --data-dir"
                ) from exc
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield

    @contextlib.asynccontextmanager
    async def _etcd(self) -> AsyncIterator[Access]:
        if self.options.access.endpoints:
            self._say(f"etcd       {', '.join(self.options.access.endpoints)}")
            yield self.options.access
            return
        options = self.options
        servers = etcd_servers(
            options.data_dir / "etcd", self._logs, options.etcd_members, ("--log-level=warn",)
        )
        for server in servers:
            server.log.unlink(missing_ok=True)
        starting = asyncio.create_task(start_all(servers))
        try:
            await self._unless_stopped(starting)
            endpoints = tuple(server.endpoint for server in servers)
            self._say(f"etcd       {', '.join(endpoints)}")
            self._pids.update({one.name: one.process.pid for one in servers if one.process})
            yield replace(options.access, endpoints=endpoints)
        finally:
            starting.cancel()
            await asyncio.wait({starting})
            await asyncio.gather(*(server.stop() for server in servers))

    async def _serve(self, access: Access) -> bool:
        if self.stop.is_set():
            return True
        with contextlib.ExitStack() as held:
            if self.options.actions_host:
                # Held while the Routers share it, so that the port is nobody else's.
                self._actions = held.enter_context(reserve(self.options.actions_host))
            return await self._serve_children(access)

    async def _serve_children(self, access: Access) -> bool:
        self._make(access)
        children = [*self._managers, *self._routers]
        for child in children:
            await child.start()
        deaths = {asyncio.create_task(child.wait()): child for child in children}
        try:
            async with asyncio.timeout(READY_S):
                ready = asyncio.create_task(self._ready(access))
                routers = await self._unless_stopped(ready, deaths)
        except TimeoutError as exc:
            tails = "\n".join(child.obituary() for child in children)
            raise DevError(f"the cluster is not ready after {READY_S:.0f} s\n{tails}") from exc
        if routers is None:
            return True
        file = DevFile(
            pid=os.getpid(),
            data_dir=str(self.options.data_dir),
            etcd=",".join(access.endpoints),
            routers=tuple(routers[name] for name in sorted(routers, key=_number)),
            cluster=self.options.cluster,
            pids={**self._pids, **{child.name: child.pid for child in children}},
        )
        for name in sorted(routers, key=_number):
            self._say(f"{name:<10} {routers[name]}")
        self._say(f"state      {self.options.data_dir} (logs in {self._logs})")
        file.write()
        try:
            self._say("ready; Ctrl-C stops everything")
            return await self._watch(deaths)
        finally:
            file.remove()

    def _make(self, access: Access) -> None:
        options = self.options
        shared = [
            *("--cluster", options.cluster, "--etcd", ",".join(access.endpoints)),
            *options.flags,
        ]
        store = (options.data_dir / "activations.db").resolve()
        manager_flags, router_flags = [*options.manager_flags], ["--store", f"sqlite:///{store}"]
        if self._actions is not None:
            address = "{}:{}".format(*self._actions.getsockname())
            manager_flags += ["--api-host", address]
            router_flags += ["--actions-listen", address]
        for number in range(1, options.managers + 1):
            name = f"manager-{number}"
            flags = ["--id", name, "--listen", "127.0.0.1:0", "--driver", options.driver]
            flags += ["--data-dir", str(self._manager_dir), *manager_flags]
            arguments = ["manager", *flags, *shared]
            self._managers.append(Child(name, arguments, self._logs / f"{name}.log"))
        for number in range(1, options.routers + 1):
            name = f"router-{number}"
            port = options.port + number - 1 if options.port else 0
            flags = ["--name", name, "--listen", f"127.0.0.1:{port}", *router_flags]
            arguments = ["router", *flags, *shared]
            self._routers.append(Child(name, arguments, self._logs / f"{name}.log"))

    @property
    def _manager_dir(self) -> Path:
        return self.options.data_dir / "manager"

    async def _ready(self, access: Access) -> dict[str, str]:
        """Waits until the leader knows all our Routers; returns their addresses by name."""
        wanted = {child.name for child in self._routers}
        patience = Patience("to find the Managers")
        async with Client(access) as client:
            while True:
                try:
                    listed = await managers_now(client, Keys(self.options.cluster))
                except EtcdUnavailable as exc:
                    await patience.wait(exc)
                    continue
                for address in listed.values():
                    found = await _live_routers(address)
                    if wanted <= found.keys():
                        return {name: found[name] for name in wanted}
                await asyncio.sleep(POLL_S)

    async def _unless_stopped(
        self,
        task: asyncio.Task[T],
        deaths: Deaths = MappingProxyType({}),
    ) -> T | None:
        """The task's result; None if `stop` came first. DevError if a child ended first."""
        stopping = asyncio.create_task(self.stop.wait())
        waiting: set[asyncio.Task[Any]] = {task, stopping, *deaths}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if stopping.done():
                return None
            dead = next(child for child in deaths.values() if child.ended)
            raise DevError(dead.obituary())
        finally:
            stopping.cancel()
            task.cancel()
            await asyncio.wait({task})

    async def _watch(self, deaths: Deaths) -> bool:
        """Tells who died, until `stop` is set or nobody is left."""
        left = dict(deaths)
        stopping = asyncio.create_task(self.stop.wait())
        try:
            while left and not stopping.done():
                waiting: set[asyncio.Task[Any]] = {stopping, *left}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in left if task.done() and not stopping.done()]:
                    self._say(left.pop(task).obituary())
                    self._say("the rest of the cluster goes on without it")
            return len(left) == len(deaths)
        finally:
            stopping.cancel()

    async def _stop_children(self) -> None:
        """Routers first, so that their requests end well; then Managers, then containers."""
        if any(not child.ended for child in self._routers):
            self._say("stopping: requests that run are waited for; Ctrl-C once more ends them")
        await asyncio.gather(*(one.stop(self.hurry, ROUTER_STOP_S) for one in self._routers))
        await asyncio.gather(*(one.stop(self.hurry, MANAGER_STOP_S) for one in self._managers))
        if self.options.keep or self.options.driver == "fake" or not self._manager_dir.exists():
            return
        options, folder = self.options, self._manager_dir
        sockets = run_dir(folder)
        driver = open_driver(options.driver, options.cluster, folder, sockets, options.docker)
        left = await end_containers(driver)
        if left:
            self._say(f"{left} containers could not be ended; they are in {folder}")
        with contextlib.suppress(OSError):  # what is in it is needed
            sockets.rmdir()


async def end_containers(driver: Driver) -> int:
    """Ends all containers of the driver's cluster, and what only they needed; returns how many are
    left."""
    from slotway.drivers.docker import DockerDriver  # slow to import: not at the start

    try:
        await driver.start()
        left = {one.label.id for one in await driver.list()}
        for container in left:
            await driver.destroy(container)
        deadline = asyncio.get_running_loop().time() + CONTAINERS_STOP_S
        while left and asyncio.get_running_loop().time() < deadline:
            left = {one for one in left if not await driver.has_ended(one)}
            if left:
                await asyncio.sleep(0.05)
        if not left and isinstance(driver, DockerDriver):
            await driver.dissolve()
    finally:
        await driver.close()
    return len(left)


def reserve(host: str) -> socket.socket:
    """A socket that holds a free port of this host, for others of this user to listen at; the host
    may come later."""
    held = socket.socket()
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
        held.bind((host, 0))
    except OSError as exc:
        held.close()
        raise DevError(f"no port for actions at {host}: {exc}") from exc
    return held


async def _live_routers(address: str) -> dict[str, str]:
    """The Routers that have a session with the leader at this address; none if it does not lead."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        try:
            answer = await stub.GetCluster(cluster_pb2.GetClusterRequest(), timeout=1)
        except grpc.aio.AioRpcError:
            return {}
    return {
        router.name: router.address
        for router in answer.cluster.routers
        if router.state == cluster_pb2.RouterStatus.STATE_LIVE
    }


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])
