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
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from slotway.drivers import lock, procfs
from slotway.drivers.base import ContainerFound, ContainerId, ContainerSpec, DriverError
from slotway.drivers.ends import Ends
from slotway.drivers.guard import Guard
from slotway.drivers.init import post_init
from slotway.drivers.lock import Sight, State
from slotway.drivers.spawner import Spawner
from slotway.drivers.supervisor import Order

SOCKET_PATH_BYTES_MAX = 107
"""`sun_path` holds 108 with the terminating zero."""
ID_BYTES_MAX = 40
KINDS = ("python:3", "python:default")
CREATE_TIMEOUT_S = 20.0
KILL_TIMEOUT_S = 2.0
ENDED_LOGS_MAX = 200
logger = logging.getLogger(__name__)


class ProcessDriver:
    """Containers of one cluster on this machine; see `base.Driver`."""

    name = "process"

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
        self._data = data_dir.absolute() / "containers"
        self._sockets = socket_dir.absolute()
        self._period_s = reconcile.total_seconds()
        self.spawner: Spawner | None = None
        self._guard: Guard | None = None
        self._creating: dict[ContainerId, asyncio.Task[str]] = {}
        self._seen: set[ContainerId] = set()
        """Were seen to run, and their end is yet to be told."""
        self._watched: dict[ContainerId, tuple[int, asyncio.Event]] = {}
        self._destroying: dict[ContainerId, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._ends = Ends()

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
            for directory in self._data, self._sockets:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._guard = Guard(self._data / "guard")
        except OSError as error:
            raise DriverError(f"the process driver cannot use its directory: {error}") from error
        self.spawner = Spawner(self._guard.fd)
        await self._guard.hold()
        await asyncio.to_thread(self.spawner.start)
        await self._reconcile()
        self._own(self._reconcile_for_ever())

    def _check_paths(self) -> None:
        room = SOCKET_PATH_BYTES_MAX - len(f"/{'i' * ID_BYTES_MAX}.sock")
        used = len(os.fsencode(self._sockets))
        if used > room:
            raise DriverError(
                f"the directory for sockets has a path of {used} bytes, {self._sockets}; it may"
                f" have {room}, because Linux bounds the path of a Unix socket to"
                f" {SOCKET_PATH_BYTES_MAX} bytes: choose a shorter one"
            )

    async def close(self) -> None:
        """Lets go of everything. Containers live on."""
        tasks = [*self._tasks, *self._destroying.values(), *self._creating.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for container in list(self._watched):
            self._unwatch(container)
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

    def address(self, container: ContainerId) -> str:
        """A Unix socket named after the container."""
        return f"unix:{self._socket(container)}"

    async def create(self, spec: ContainerSpec) -> None:
        """Forks the container; see `base.Driver`. Cancelled, it leaves the container to `list`."""
        label = spec.label
        if spec.kind not in KINDS:
            raise DriverError(f"the process driver runs {KINDS[0]}, not {spec.kind}")
        if label.cluster != self._cluster:
            raise DriverError(f"this driver is for the cluster {self._cluster!r}")
        _check_descriptors(spec.capacity)
        order = Order(
            label,
            spec.capacity,
            spec.memory_mib,
            lock=str(self._lock(label.id)),
            socket=str(self._socket(label.id)),
            log=str(self._data / f"{label.id}.log"),
            work=str(self._data / f"{label.id}.work"),
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
        if not answer and lock.look(self._lock(container)).state is State.ABSENT:
            # The zygote died with the order in its hands; it is sent to the next one.
            answer = await self._spawn(order)
        if answer not in ("ready", "exists", ""):
            raise DriverError(f"container {container} could not be created: {answer}")
        while True:
            sight = await self._check(container)
            if sight.state in (State.ENDED, State.ABSENT):
                raise DriverError(f"container {container} has ended ({sight.ending or answer})")
            if sight.record is not None and sight.record.label.cluster != self._cluster:
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
            _, writer = await asyncio.open_unix_connection(self._socket(container))
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
            sight = await self._check(container, claim=True)
            while sight.state is State.STARTING:
                await asyncio.sleep(0.02)
                sight = await self._check(container, claim=True)
            if sight.state is State.ENDED:
                self._ends.tell(container)
                return
            if sight.state is State.RUNNING and sight.record is not None:
                record = sight.record
                procfs.signal_process(record.pid, record.start, record.boot, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone(container), KILL_TIMEOUT_S)

    async def _gone(self, container: ContainerId) -> None:
        """Waits for the supervisor's exit; for a moment, if it is not watched."""
        _, gone = self._watched.get(container, (-1, None))
        if gone is None:
            await asyncio.sleep(0.05)
        else:
            await gone.wait()

    async def has_ended(self, container: ContainerId) -> bool:
        """Whether the lock says so. An id that was never used is used up by asking, unless this
        driver is just creating it."""
        if container in self._creating:
            return False
        return (await self._check(container, claim=True)).state is State.ENDED

    async def list(self) -> builtins.list[ContainerFound]:
        """The containers whose lock files carry this cluster's label."""
        found = []
        for container in self._ids():
            sight = self._look(container)
            if sight.record is not None and sight.record.label.cluster == self._cluster:
                running = sight.state is not State.ENDED
                found.append(ContainerFound(sight.record.label, running, self.address(container)))
        return found

    def ends(self) -> AsyncIterator[ContainerId]:
        """Ends as they are proved, each at least once. For one reader."""
        return self._ends.read()

    async def _check(self, container: ContainerId, *, claim: bool = False) -> Sight:
        """Looks at the container, and does what follows: watches it, cleans up after it, tells its
        end, if it has a label or this driver has seen it run."""
        path = self._lock(container)
        sight = self._look(container, claim=claim)
        if sight.state is State.UNCLEAN:
            sight = await asyncio.to_thread(lock.clean, path)
        if sight.state is State.RUNNING and self._is_ours(sight) and not self._watch(sight):
            # Its supervisor exits right now: what the lock says next is the end.
            sight = self._look(container)
        if sight.state is State.ENDED and self._is_ours(sight):
            self._seen.add(container)
            with contextlib.suppress(FileNotFoundError):
                self._socket(container).unlink()
            shutil.rmtree(self._data / f"{container}.work", ignore_errors=True)
            lock.bury(path)
            logger.info("container %s has ended: %s", container, sight.ending)
        # Another driver may have buried it, and swept, before this one could look.
        if sight.state in (State.ENDED, State.ABSENT) and container in self._seen:
            self._seen.remove(container)
            self._unwatch(container)
            self._ends.tell(container)
        return sight

    def _is_ours(self, sight: Sight) -> bool:
        return sight.record is not None and sight.record.label.cluster == self._cluster

    def _look(self, container: ContainerId, *, claim: bool = False) -> Sight:
        try:
            return lock.look(self._lock(container), claim=claim)
        except (ValueError, KeyError, TypeError) as error:
            # Not ours to judge: it counts as running, and a person has to see to it.
            logger.error("the lock file of container %s cannot be read: %s", container, error)
            return Sight(State.RUNNING)

    def _watch(self, sight: Sight) -> bool:
        """Has the loop told when the supervisor exits; False if there is no such process."""
        assert sight.record is not None
        container, pid = sight.record.label.id, sight.record.pid
        self._seen.add(container)
        if container in self._watched:
            return True
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        if procfs.start_time(pid) != sight.record.start:
            os.close(pidfd)
            return False
        self._watched[container] = pidfd, asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, self._on_exit, container)
        return True

    def _on_exit(self, container: ContainerId) -> None:
        self._unwatch(container)
        # What is not proved yet is left to the reconcile.
        self._own(self._check(container))

    def _unwatch(self, container: ContainerId) -> None:
        pidfd, gone = self._watched.pop(container, (-1, None))
        if pidfd >= 0:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
        if gone is not None:
            gone.set()

    async def _reconcile_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self._reconcile()
            except OSError as error:
                logger.warning("the process driver cannot look at its containers: %s", error)

    async def _reconcile(self) -> None:
        """Looks at every container that is not watched, and removes what is no longer needed."""
        for container in {*self._ids(), *self._seen}:
            if container not in self._watched and container not in self._destroying:
                await self._check(container)
        self.sweep()

    def sweep(self) -> None:
        """Removes tombstones and old logs, if no other driver and no order of ours is about."""
        if self._guard is None or self._creating:
            return
        with self._guard.alone() as alone:
            if not alone:
                return
            for container in self._ids():
                lock.sweep(self._lock(container))
            there = set(self._ids())
        logs = [each for each in self._data.glob("*.log") if each.stem not in there]
        logs.sort(key=lambda each: each.stat().st_mtime)
        for each in logs[:-ENDED_LOGS_MAX]:
            each.unlink(missing_ok=True)
            each.with_suffix(".log.1").unlink(missing_ok=True)

    def _ids(self) -> builtins.list[ContainerId]:
        return [ContainerId(each.stem) for each in self._data.glob("*.lock")]

    def _lock(self, container: ContainerId) -> Path:
        if not container or len(container) > ID_BYTES_MAX or not _is_name(container):
            raise DriverError(f"not a container's id: {container!r}")
        return self._data / f"{container}.lock"

    def _socket(self, container: ContainerId) -> Path:
        return self._sockets / f"{container}.sock"

    def _own(self, work: Coroutine[object, object, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_name(container: ContainerId) -> bool:
    return container.isascii() and container.replace("-", "").replace("_", "").isalnum()


def _check_descriptors(capacity: int) -> None:
    """A container needs a descriptor for each of its slots."""
    needed, hard = 64 + 2 * capacity, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise DriverError(
            f"a container of capacity {capacity} needs {needed} file descriptors; the limit"
            f" (ulimit -Hn) is {hard}"
        )
