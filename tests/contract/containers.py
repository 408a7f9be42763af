"""What the tests of drivers and runtime share: engines to open drivers on, requests to
containers."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from slotway.drivers.base import ContainerId, ContainerSpec, Driver, Label
from slotway.drivers.fake import FakeDriver, FakeEngine
from slotway.drivers.lock import Record, look
from slotway.drivers.process import ProcessDriver

CLUSTER = "test"
SOON = timedelta(seconds=5)
PATIENCE_S = 15
ECHO = "import os\nasync def main(args):\n    return {'pid': os.getpid(), **args}\n"

BARRIER = {
    "def": """
import threading
barrier, lock, running, most = threading.Barrier(COUNT), threading.Lock(), 0, 0
def main(args):
    global running, most
    with lock:
        running += 1
        most = max(most, running)
    barrier.wait(10)
    with lock:
        running -= 1
    return {"most": most}
""",
    "async def": """
import asyncio
arrived, all_here, running, most = 0, asyncio.Event(), 0, 0
async def main(args):
    global running, most
    running += 1
    most = max(most, running)
    if running == COUNT:
        all_here.set()
    await asyncio.wait_for(all_here.wait(), 10)
    running -= 1
    return {"most": most}
""",
}
"""Actions that wait until COUNT requests are inside, and answer with the most there were."""


def spec(name: str, *, capacity: int = 1, memory_mib: int = 128) -> ContainerSpec:
    return ContainerSpec(
        Label(CLUSTER, 1, ContainerId(name), "1.1"), "python:3", capacity, memory_mib
    )


def code(source: str) -> dict[str, object]:
    return {"name": "guest/hello", "main": "main", "code": source, "binary": False, "env": {}}


class Engine(Protocol):
    """Where containers are; drivers come and go."""

    def driver(self, cluster: str = CLUSTER) -> ProcessDriver | FakeDriver: ...
    def break_init(self, message: str) -> dict[str, object]:
        """A value whose `/init` fails with this message."""

    def crash(self, container: ContainerId) -> None:
        """Ends the container behind the driver's back."""


class FakeWorld:
    def __init__(self, sockets: Path) -> None:
        self._sockets = sockets
        self.engine = FakeEngine()

    def driver(self, cluster: str = CLUSTER) -> FakeDriver:
        return FakeDriver(cluster, self._sockets, self.engine)

    def break_init(self, message: str) -> dict[str, object]:
        self.engine.init_error = f'{{"error": "{message}"}}'
        return code(ECHO)

    def crash(self, container: ContainerId) -> None:
        self.engine.end(container)

    async def close(self) -> None:
        for container in list(self.engine.containers):
            self.engine.end(container)
        # The loop closes what was aborted in its next turn.
        await asyncio.sleep(0)


class ProcessWorld:
    def __init__(self, directory: Path, sockets: Path) -> None:
        self._directory = directory / "data dir"
        self.data = self._directory / "containers"
        self.sockets = sockets

    def driver(
        self, cluster: str = CLUSTER, *, reconcile: timedelta = timedelta(milliseconds=100)
    ) -> ProcessDriver:
        return ProcessDriver(cluster, self._directory, self.sockets, reconcile=reconcile)

    def break_init(self, message: str) -> dict[str, object]:
        return code(f"raise RuntimeError({message!r})")

    def crash(self, container: ContainerId) -> None:
        os.kill(self.runtime(container), 9)

    def record(self, container: str) -> Record:
        record = look(self.data / f"{container}.lock").record
        assert record is not None
        return record

    def runtime(self, container: str) -> int:
        """The process that runs the action."""
        pid = self.record(container).pid
        runtime, *_orphans = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(runtime)


async def told(driver: Driver, *containers: str) -> None:
    """Waits until the ends of all these were told."""
    missing = set(containers)
    async with asyncio.timeout(PATIENCE_S):
        async for container in driver.ends():
            missing.discard(container)
            if not missing:
                return


async def post(address: str, path: str, body: dict[str, object]) -> tuple[int, dict[str, Any]]:
    """One request to a container over a connection of its own."""
    connector = aiohttp.UnixConnector(address.removeprefix("unix:"))
    async with (
        asyncio.timeout(PATIENCE_S),
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"http://container{path}", json=body) as response,
    ):
        return response.status, await response.json()


async def run(driver: Driver, container: str, **value: object) -> dict[str, Any]:
    """`/run`, which must succeed."""
    body: dict[str, object] = {"value": value, "activation_id": "a1"}
    status, answer = await post(driver.address(ContainerId(container)), "/run", body)
    assert status == 200, answer
    return answer


async def until_gone(*pids: int) -> None:
    """Waits for processes, by their ids, that nobody here may reap."""
    async with asyncio.timeout(PATIENCE_S):
        for pid in pids:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            gone = asyncio.Event()
            asyncio.get_running_loop().add_reader(pidfd, gone.set)
            await gone.wait()
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)


async def end_all(world: ProcessWorld) -> None:
    """Leaves nothing behind."""
    async with world.driver() as driver:
        names = [found.label.id for found in await driver.list()]
        for name in names:
            await driver.destroy(name)
        if names:
            await told(driver, *names)
