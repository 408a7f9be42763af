"""The containers of a directory, as their lock files tell: what runs, what has ended, and who is
yet to be told.

Nothing here could not be read again, so any number of drivers may look at the same directory, after
one another or at once. A pidfd of each supervisor tells when to look; only the lock proves an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Container
from pathlib import Path

from slotway.drivers import lock, procfs
from slotway.drivers.base import LOG_BYTES_MAX, ContainerId, DriverError
from slotway.drivers.ends import Ends
from slotway.drivers.lock import Sight, State

ID_BYTES_MAX = 40
ENDED_LOGS_MAX = 200
logger = logging.getLogger(__name__)


class Census:
    """One driver's view of its cluster's containers."""

    def __init__(self, cluster: str, folder: Path, sockets: Path) -> None:
        """`folder` holds lock files, logs and working directories."""
        self._cluster = cluster
        self.folder = folder
        self.sockets = sockets
        self.ends = Ends()
        self._seen: set[ContainerId] = set()
        """Were seen to run, and their end is yet to be told."""
        self._watched: dict[ContainerId, tuple[int, asyncio.Event]] = {}
        self._tasks: set[asyncio.Task[Sight]] = set()

    async def close(self) -> None:
        """Stops watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for container in list(self._watched):
            self._unwatch(container)

    def ids(self) -> list[ContainerId]:
        """All that have a lock file, of any cluster; tombstones too."""
        names = (ContainerId(each.stem) for each in self.folder.glob("*.lock"))
        return [name for name in names if _is_name(name)]

    def lock(self, container: ContainerId) -> Path:
        """Its lock file. DriverError if this cannot be an id."""
        if not _is_name(container):
            raise DriverError(f"not a container's id: {container!r}")
        return self.folder / f"{container}.lock"

    def socket(self, container: ContainerId) -> Path:
        """Where it listens."""
        return self.sockets / f"{container}.sock"

    async def check(self, container: ContainerId, *, claim: bool = False) -> Sight:
        """Looks at the container, and does what follows: watches it, cleans up after it, tells its
        end, if it has a label or this driver has seen it run."""
        path = self.lock(container)
        sight = self.look(container, claim=claim)
        if sight.state is State.UNCLEAN:
            sight = await asyncio.to_thread(lock.clean, path)
        if sight.state is State.RUNNING and self.is_ours(sight) and not self._watch(sight):
            # Its supervisor exits right now: what the lock says next is the end.
            sight = self.look(container)
        if sight.state is State.ENDED and self.is_ours(sight):
            self._seen.add(container)
            if sight.record is not None:
                self.ends.explain(container, sight.ending)
            with contextlib.suppress(FileNotFoundError):
                self.socket(container).unlink()
            shutil.rmtree(self.folder / f"{container}.work", ignore_errors=True)
            lock.bury(path)
            logger.info("container %s has ended: %s", container, sight.ending)
        # Another driver may have buried it, and swept, before this one could look.
        if sight.state in (State.ENDED, State.ABSENT) and container in self._seen:
            self._seen.remove(container)
            self._unwatch(container)
            self.ends.tell(container)
        return sight

    def is_ours(self, sight: Sight) -> bool:
        """Whether it carries this cluster's label."""
        return sight.record is not None and sight.record.label.cluster == self._cluster

    def look(self, container: ContainerId, *, claim: bool = False) -> Sight:
        """Its state, with no consequence but those of `lock.look`."""
        try:
            return lock.look(self.lock(container), claim=claim)
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
        task = asyncio.create_task(self.check(container))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _unwatch(self, container: ContainerId) -> None:
        pidfd, gone = self._watched.pop(container, (-1, None))
        if pidfd >= 0:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
        if gone is not None:
            gone.set()

    async def gone(self, container: ContainerId) -> None:
        """Waits for the supervisor's exit; for a moment, if it is not watched."""
        _, gone = self._watched.get(container, (-1, None))
        if gone is None:
            await asyncio.sleep(0.05)
        else:
            await gone.wait()

    async def reconcile(self, others: Container[ContainerId]) -> None:
        """Looks at every container that is not watched, nor among `others`."""
        for container in {*self.ids(), *self._seen}:
            if container not in self._watched and container not in others:
                await self.check(container)

    def sweep(self) -> None:
        """Removes tombstones. Only for who knows that no creation can be under way (`Guard`)."""
        for container in self.ids():
            lock.sweep(self.lock(container))

    def log(self, container: ContainerId) -> bytes:
        """What is kept of the container's output; DriverError if nothing is. Blocks."""
        newest = self.lock(container).with_suffix(".log")
        kept = b""
        for path in newest.with_suffix(".log.1"), newest:
            with contextlib.suppress(FileNotFoundError):
                kept += path.read_bytes()
        if not kept and not newest.exists():
            raise DriverError(f"no log is kept of container {container}")
        return kept[-LOG_BYTES_MAX:]

    def sweep_logs(self) -> None:
        """Removes the oldest logs of containers that have ended."""
        there = set(self.ids())
        logs = [each for each in self.folder.glob("*.log") if each.stem not in there]
        logs.sort(key=lambda each: each.stat().st_mtime)
        for each in logs[:-ENDED_LOGS_MAX]:
            each.unlink(missing_ok=True)
            each.with_suffix(".log.1").unlink(missing_ok=True)


def _is_name(container: ContainerId) -> bool:
    if not 0 < len(container) <= ID_BYTES_MAX:
        return False
    return container.isascii() and container.replace("-", "").replace("_", "").isalnum()
