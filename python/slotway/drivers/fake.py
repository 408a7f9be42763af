"""The fake driver: containers without any code, for benches and tests of everything else.

A container is a listener within the Manager's own process. It answers `/run` with `{}` at once, and
it dies with the process: nothing of it is adopted by the next one, and its end proves nothing about
work that never was.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from slotway.drivers.base import (
    DOCKER_RUNS_IT,
    Addresses,
    ContainerFound,
    ContainerId,
    ContainerSpec,
    DriverError,
    Label,
    UnfitError,
)
from slotway.drivers.ends import Ends
from slotway.drivers.init import post_init
from slotway.runtime.server import Connection

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class FakeContainer:
    """One listener; it is also what answers (`runtime.server.Handler`)."""

    engine: FakeEngine
    label: Label
    path: Path
    server: asyncio.Server | None = None
    connections: set[Connection] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    initialised: bool = False

    async def init(self, body: bytes) -> tuple[int, bytes]:
        """Answers `/init`, as the engine was told to."""
        if self.initialised:
            return 403, b'{"error":"Cannot initialize the action more than once."}'
        self.initialised = True
        if self.engine.init_error:
            return 502, self.engine.init_error.encode()
        return 200, b'{"ok":true}'

    async def run(self, body: bytes) -> tuple[int, bytes]:
        """Answers `/run`, as soon as the engine was told to, and with {"gather": N} as its argument
        when N of them have come to whatever container."""
        if self.engine.run_s:
            await asyncio.sleep(self.engine.run_s)
        if b'"gather"' in body:
            await self.engine.gather(int(json.loads(body)["value"]["gather"]))
        return 200, b"{}"

    async def listen(self) -> None:
        """Begins to accept, in the place of what a Manager that is no more left behind."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(
            lambda: Connection(self, self.connections, self.tasks), self.path, backlog=1024
        )

    def close(self) -> None:
        """Drops the listener, every connection, and what runs."""
        if self.server is not None:
            self.server.close()
        for task in list(self.tasks):
            task.cancel()
        for connection in list(self.connections):
            connection.abort()
        self.path.unlink(missing_ok=True)


class FakeEngine:
    """Holds the containers, so that several drivers can see them; a test tells it what is to go
    wrong."""

    def __init__(self) -> None:
        self.containers: dict[ContainerId, FakeContainer] = {}
        self.used: set[ContainerId] = set()
        self.drivers: set[FakeDriver] = set()
        self.create_error = ""
        """Creations fail with this message."""
        self.create_s = 0.0
        """Creations take so long."""
        self.init_error = ""
        """`/init` answers 502 with this body."""
        self.run_s = 0.0
        """`/run` takes so long."""
        self._gathered, self._count = asyncio.Event(), 0

    async def gather(self, count: int) -> None:
        """Waits until this has been called so often."""
        gathered = self._gathered
        self._count += 1
        if self._count >= count:
            gathered.set()
            self._gathered, self._count = asyncio.Event(), 0
        await gathered.wait()

    def end(self, container: ContainerId, ending: str = "") -> None:
        """Ends a container, as a crash would, and tells every driver."""
        self.used.add(container)
        found = self.containers.pop(container, None)
        if found is not None:
            found.close()
        for driver in self.drivers:
            driver.tell(container, ending)


class FakeDriver:
    """A driver of instant containers; see `base.Driver`."""

    name = "fake"
    numbered: Addresses | None = None

    def __init__(self, cluster: str, socket_dir: Path, engine: FakeEngine | None = None) -> None:
        self._cluster = cluster
        self._sockets = socket_dir.absolute()
        self.fake = engine or FakeEngine()
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
        """Warns."""
        logger.warning(
            "THE FAKE DRIVER RUNS NO CODE: every request is answered with {}. For benches only."
        )
        self._sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.fake.drivers.add(self)

    async def close(self) -> None:
        """Leaves the engine as it is."""
        self.fake.drivers.discard(self)

    def engine(self) -> str:
        """This machine: a Manager that starts anew knows that nothing fake is left."""
        return f"fake/{socket.gethostname()}"

    def address(self, container: ContainerId, number: int = 0) -> str:
        """A Unix socket named after the container."""
        return f"unix:{self._sockets / container}.sock"

    async def check(self, kind: str, image: str, capacity: int) -> None:
        """Runs nothing, so it takes every kind, but no image."""
        if image:
            raise UnfitError("image", f"the fake driver does not run {image}: {DOCKER_RUNS_IT}")

    async def create(self, spec: ContainerSpec) -> None:
        """Listens."""
        label = spec.label
        await self.check(spec.kind, spec.image, spec.capacity)
        if self.fake.create_s:
            await asyncio.sleep(self.fake.create_s)
        if self.fake.create_error:
            raise DriverError(self.fake.create_error)
        if label.id in self.fake.containers:
            return
        if label.id in self.fake.used:
            raise DriverError(f"container {label.id} has ended")
        path = Path((spec.address or self.address(label.id)).removeprefix("unix:"))
        container = FakeContainer(self.fake, label, path)
        self.fake.used.add(label.id)
        self.fake.containers[label.id] = container
        await container.listen()

    async def init(
        self, container: ContainerId, value: dict[str, object], timeout: timedelta
    ) -> None:
        """`POST /init`."""
        found = self.fake.containers.get(container)
        if found is None:
            raise DriverError(f"container {container} has ended")
        await post_init(f"unix:{found.path}", value, timeout)

    async def destroy(self, container: ContainerId) -> None:
        """Ends it."""
        self.fake.end(container)

    async def has_ended(self, container: ContainerId) -> bool:
        """Whether it is not there; it will not be again."""
        if container not in self.fake.containers:
            self.fake.used.add(container)
        return container not in self.fake.containers

    def ending(self, container: ContainerId) -> str:
        """In the test's words."""
        return self._ends.how(container)

    async def log(self, container: ContainerId) -> bytes:
        """Nothing is ever printed."""
        return b""

    async def list(self) -> list[ContainerFound]:
        """What listens."""
        return [
            ContainerFound(each.label, True, f"unix:{each.path}")
            for each in self.fake.containers.values()
            if each.label.cluster == self._cluster
        ]

    def ends(self) -> AsyncIterator[ContainerId]:
        """Ends since the driver was started."""
        return self._ends.read()

    def tell(self, container: ContainerId, ending: str) -> None:
        """For the engine: this one has ended."""
        self._ends.explain(container, ending)
        self._ends.tell(container)
