"""What the tests of drivers and runtime share: engines to open drivers on, requests to
containers."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from slotway.drivers.base import ContainerId, ContainerSpec, Driver, Label
from slotway.drivers.docker import DockerDriver, DockerOptions
from slotway.drivers.docker.engine import Engine as DockerEngine
from slotway.drivers.fake import FakeDriver, FakeEngine
from slotway.drivers.lock import Record, look
from slotway.drivers.process import ProcessDriver

CLUSTER = "test"
LEDGER = "ledger-of-the-tests"
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


def spec(
    name: str,
    *,
    capacity: int = 1,
    memory_mib: int = 128,
    cluster: str = CLUSTER,
    address: str = "",
) -> ContainerSpec:
    label = Label(cluster, 1, ContainerId(name), "1.1")
    return ContainerSpec(label, "python:3", capacity, memory_mib, address, ledger=LEDGER)


def code(source: str) -> dict[str, object]:
    return {"name": "guest/hello", "main": "main", "code": source, "binary": False, "env": {}}


class Engine(Protocol):
    """Where containers are; drivers come and go."""

    def driver(self, cluster: str = "") -> ProcessDriver | FakeDriver | DockerDriver: ...
    def spec(self, name: str) -> ContainerSpec:
        """What to create by this name."""

    def break_init(self, message: str) -> dict[str, object]:
        """A value whose `/init` fails with this message."""

    def crash(self, container: ContainerId) -> None:
        """Ends the container behind the driver's back."""


class FakeWorld:
    def __init__(self, sockets: Path) -> None:
        self._sockets = sockets
        self.engine = FakeEngine()

    def driver(self, cluster: str = "") -> FakeDriver:
        return FakeDriver(cluster or CLUSTER, self._sockets, self.engine)

    def spec(self, name: str) -> ContainerSpec:
        return spec(name, address=self.driver().address(ContainerId(name)))

    def break_init(self, message: str) -> dict[str, object]:
        self.engine.init_error = f'{{"error": "{message}"}}'
        return code(ECHO)

    def crash(self, container: ContainerId) -> None:
        self.engine.end(container, "SIGKILL")

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
        self, cluster: str = "", *, reconcile: timedelta = timedelta(milliseconds=100)
    ) -> ProcessDriver:
        return ProcessDriver(cluster or CLUSTER, self._directory, self.sockets, reconcile=reconcile)

    def spec(self, name: str) -> ContainerSpec:
        return spec(name, address=self.driver().address(ContainerId(name)))

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


class DockerWorld:
    """The engine of this machine, in a cluster and with a subnet of this test run's own."""

    cluster = f"test-{os.getpid()}"
    subnet = f"198.18.{os.getpid() % 16 * 16}.0/20"
    _numbers = itertools.count(1)
    """Addresses are used once, for as long as the network lives."""

    def __init__(self) -> None:
        self._specs: dict[str, ContainerSpec] = {}

    def driver(self, cluster: str = "", **options: Any) -> DockerDriver:
        timing = {name: options.pop(name) for name in ("reconcile", "answer") if name in options}
        chosen = DockerOptions(**{"subnet": self.subnet, **options})
        return DockerDriver(
            cluster or self.cluster, chosen, **{"reconcile": timedelta(seconds=0.5), **timing}
        )

    def spec(self, name: str, *, capacity: int = 1, memory_mib: int = 128) -> ContainerSpec:
        if name not in self._specs:
            address = self.driver().address(ContainerId(name), next(self._numbers))
            self._specs[name] = spec(
                name,
                capacity=capacity,
                memory_mib=memory_mib,
                cluster=self.cluster,
                address=address,
            )
        return self._specs[name]

    def name(self, container: str) -> str:
        """The engine's."""
        return f"slotway.{self.cluster}.{container}"

    def break_init(self, message: str) -> dict[str, object]:
        return code(f"raise RuntimeError({message!r})")

    def crash(self, container: ContainerId) -> None:
        subprocess.run(
            ["docker", "kill", self.name(container)], check=True, capture_output=True, timeout=30
        )

    async def close(self) -> None:
        """Removes every container and every tomb."""
        engine = DockerEngine(DockerOptions().socket)
        await engine.open()
        filters = f'{{"label":["slotway.cluster={self.cluster}"]}}'
        try:
            for each in await engine.call("GET", "/containers/json", all="true", filters=filters):
                await engine.call(
                    "DELETE", f"/containers/{each['Id']}", timeout_s=30, force="true", v="true"
                )
        finally:
            await engine.close()


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
    path_of_socket = address.removeprefix("unix:")
    unix = path_of_socket != address
    connector = aiohttp.UnixConnector(path_of_socket) if unix else aiohttp.TCPConnector()
    async with (
        asyncio.timeout(PATIENCE_S),
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"http://{'container' if unix else address}{path}", json=body) as response,
    ):
        return response.status, await response.json()


async def connect(address: str) -> None:
    """Opens a connection and closes it; OSError."""
    path = address.removeprefix("unix:")
    if path != address:
        _, writer = await asyncio.open_unix_connection(path)
    else:
        host, _, port = address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
    writer.close()


async def run(address: str, **value: object) -> dict[str, Any]:
    """`/run`, which must succeed."""
    body: dict[str, object] = {"value": value, "activation_id": "a1"}
    status, answer = await post(address, "/run", body)
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
