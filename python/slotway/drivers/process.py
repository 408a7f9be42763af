"""The process driver: containers are processes of this machine. No Docker needed, and no isolation
between them.

Each container has a supervisor (`supervisor`), whose lock file (`lock`) is the truth about it: the
driver keeps nothing that it could not read again, so any number of drivers may use the same
directories, after one another or at once. It hears of ends through a pidfd per supervisor and
believes them when the lock says so; a reconcile every few seconds finds what it was not told.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import itertools
import logging
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from slotway.drivers import lock, procfs
from slotway.drivers.base import (
    DOCKER_RUNS_IT,
    Addresses,
    ContainerFound,
    ContainerId,
    ContainerSpec,
    DriverError,
    UnfitError,
)
from slotway.drivers.census import ID_BYTES_MAX, Census
from slotway.drivers.guard import Guard
from slotway.drivers.init import post_init
from slotway.drivers.lock import State
from slotway.drivers.spawner import Spawner
from slotway.drivers.supervisor import Order

SOCKET_PATH_BYTES_MAX = 107
"""`sun_path` holds 108 with the terminating zero."""
KINDS = ("python:3", "python:default")
CREATE_TIMEOUT_S = 20.0
KILL_TIMEOUT_S = 2.0
logger = logging.getLogger(__name__)


class ProcessDriver:
    """Containers of one cluster on this machine; see `base.Driver`."""

    name = "process"
    numbered: Addresses | None = None

    def __init__(
        self,
        cluster: str,
        data_dir: Path,
        socket_dir: Path,
        *,
        reconcile: timedelta = timedelta(seconds=2),
    ) -> None:
        """`data_dir`/containers holds lock files, logs and working directories; `socket_dir` holds
        sockets and has a short path."""
        self._cluster = cluster
        self._census = Census(cluster, data_dir.absolute() / "containers", socket_dir.absolute())
        self._period_s = reconcile.total_seconds()
        self.spawner: Spawner | None = None
        self._guard: Guard | None = None
        self._creating: dict[ContainerId, asyncio.Task[str]] = {}
        self._destroying: dict[ContainerId, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Makes the directories, starts the spawner and finds the containers that are there."""
        self._check_paths()
        try:
            for directory in self._census.folder, self._census.sockets:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._guard = Guard(self._census.folder / "guard")
        except OSError as error:
            raise DriverError(f"the process driver cannot use its directory: {error}") from error
        self.spawner = Spawner(self._guard.fd)
        await self._guard.hold()
        await asyncio.to_thread(self.spawner.start)
        await self._census.reconcile(())
        self._own(self._reconcile_for_ever())

    def _check_paths(self) -> None:
        room = SOCKET_PATH_BYTES_MAX - len(f"/{'i' * ID_BYTES_MAX}.sock")
        used = len(os.fsencode(self._census.sockets))
        if used > room:
            raise DriverError(
                f"the directory for sockets has a path of {used} bytes, {self._census.sockets};"
                f" it may have {room}, because Linux bounds the path of a Unix socket to"
                f" {SOCKET_PATH_BYTES_MAX} bytes: choose a shorter one"
            )

    async def close(self) -> None:
        """Lets go of everything. Containers live on."""
        tasks = [*self._tasks, *self._destroying.values(), *self._creating.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._census.close()
        if self.spawner is not None:
            await self.spawner.close()
            self.spawner = None
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def engine(self) -> str:
        """This machine. A restart of it ends its containers, and the lock files tell so: it stays
        the same engine."""
        with contextlib.suppress(OSError):
            return f"{socket.gethostname()}/{Path('/etc/machine-id').read_text().strip()}"
        return socket.gethostname()

    def address(self, container: ContainerId, number: int = 0) -> str:
        """A Unix socket named after the container."""
        return f"unix:{self._census.socket(container)}"

    async def check(self, kind: str, image: str, capacity: int) -> None:
        """Knows its own runtime alone, which runs activations side by side."""
        if image:
            raise UnfitError("image", f"the process driver does not run {image}: {DOCKER_RUNS_IT}")
        if kind not in KINDS:
            raise UnfitError("kind", f"the process driver runs {KINDS[0]}, not {kind}")

    async def create(self, spec: ContainerSpec) -> None:
        """Forks the container; see `base.Driver`. Cancelled, it leaves the container to `list`."""
        label = spec.label
        await self.check(spec.kind, spec.image, spec.capacity)
        if label.cluster != self._cluster:
            raise DriverError(f"this driver is for the cluster {self._cluster!r}")
        _check_descriptors(spec.capacity)
        folder = self._census.folder
        order = Order(
            label,
            spec.capacity,
            spec.memory_mib,
            lock=str(self._census.lock(label.id)),
            socket=str(self._census.socket(label.id)),
            log=str(folder / f"{label.id}.log"),
            work=str(folder / f"{label.id}.work"),
        )
        try:
            async with asyncio.timeout(CREATE_TIMEOUT_S):
                await self._create(order)
        except TimeoutError as error:
            if label.id in self._creating and self.spawner is not None:
                # It hangs, or is slow beyond use: the next one gets what it has not done.
                self.spawner.kill()
            raise DriverError(
                f"container {label.id} took more than {CREATE_TIMEOUT_S} s"
            ) from error

    async def _create(self, order: Order) -> None:
        """Has the order carried out, or adopts what is there by this id."""
        container = order.label.id
        answer = await self._spawn(order)
        if not answer and lock.look(self._census.lock(container)).state is State.ABSENT:
            # The zygote died with the order in its hands; it is sent to the next one.
            answer = await self._spawn(order)
        if answer not in ("ready", "exists", ""):
            raise DriverError(f"container {container} could not be created: {answer}")
        while True:
            sight = await self._census.check(container)
            if sight.state in (State.ENDED, State.ABSENT):
                raise DriverError(f"container {container} has ended ({sight.ending or answer})")
            if sight.record is not None and not self._census.is_ours(sight):
                raise DriverError(f"container {container} belongs to another cluster")
            if answer == "ready" or await self._accepts(container):
                return
            await asyncio.sleep(0.01)

    async def _spawn(self, order: Order) -> str:
        """Sends the order, unless it is on its way. It counts as under way until it is answered,
        though the caller may leave."""
        assert self.spawner is not None, "start() comes first"
        container = order.label.id
        task = self._creating.get(container)
        if task is None:
            task = asyncio.create_task(self.spawner.spawn(order))
            self._creating[container] = task
            task.add_done_callback(lambda _: self._creating.pop(container))
        return await asyncio.shield(task)

    async def _accepts(self, container: ContainerId) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(self._census.socket(container))
        except OSError:
            return False
        writer.close()
        return True

    async def init(
        self, container: ContainerId, value: dict[str, object], timeout: timedelta
    ) -> None:
        """`POST /init` over the container's socket."""
        await post_init(self.address(container), value, timeout)

    async def destroy(self, container: ContainerId) -> None:
        """Begins to end the container; one that never was is used up."""
        if container not in self._destroying:
            task = asyncio.create_task(self._destroy(container))
            self._destroying[container] = task
            task.add_done_callback(lambda _: self._destroying.pop(container, None))

    async def _destroy(self, container: ContainerId) -> None:
        """Signals the supervisor, kills it if that does not help in time, until the end is
        proved."""
        for number in itertools.chain([signal.SIGTERM], itertools.repeat(signal.SIGKILL)):
            sight = await self._census.check(container, claim=True)
            while sight.state is State.STARTING:
                await asyncio.sleep(0.02)
                sight = await self._census.check(container, claim=True)
            if sight.state is State.ENDED:
                self._census.ends.tell(container)
                return
            if sight.state is State.RUNNING and sight.record is not None:
                record = sight.record
                procfs.signal_process(record.pid, record.start, record.boot, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._census.gone(container), KILL_TIMEOUT_S)

    async def has_ended(self, container: ContainerId) -> bool:
        """Whether the lock says so. An id that was never used is used up by asking, unless this
        driver is just creating it."""
        if container in self._creating:
            return False
        return (await self._census.check(container, claim=True)).state is State.ENDED

    def ending(self, container: ContainerId) -> str:
        """As its supervisor wrote it down."""
        return self._census.ends.how(container)

    async def log(self, container: ContainerId) -> bytes:
        """The two files that its supervisor wrote."""
        return await asyncio.to_thread(self._census.log, container)

    async def list(self) -> builtins.list[ContainerFound]:
        """The containers whose lock files carry this cluster's label."""
        found = []
        for container in self._census.ids():
            sight = self._census.look(container)
            if sight.record is not None and self._census.is_ours(sight):
                running = sight.state is not State.ENDED
                found.append(ContainerFound(sight.record.label, running, self.address(container)))
        return found

    def ends(self) -> AsyncIterator[ContainerId]:
        """Ends as they are proved, each at least once. For one reader."""
        return self._census.ends.read()

    async def _reconcile_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self._census.reconcile(self._destroying)
                self.sweep()
            except OSError as error:
                logger.warning("the process driver cannot look at its containers: %s", error)

    def sweep(self) -> None:
        """Removes tombstones and old logs, if no other driver and no order of ours is about."""
        if self._guard is None or self._creating:
            return
        with self._guard.alone() as alone:
            if alone:
                self._census.sweep()
        self._census.sweep_logs()

    def _own(self, work: Coroutine[object, object, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _check_descriptors(capacity: int) -> None:
    """A container needs a descriptor for each of its slots."""
    needed, hard = 64 + 2 * capacity, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise DriverError(
            f"a container of capacity {capacity} needs {needed} file descriptors; the limit"
            f" (ulimit -Hn) is {hard}"
        )
