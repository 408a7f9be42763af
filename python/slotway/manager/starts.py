"""What containers' states ask of the driver: one task per container, its result a happening.

Every state is recorded before its task begins, and every task can be begun again: a Manager that
takes over attends to what it finds, as after any commit of its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
from datetime import timedelta
from typing import Protocol

import structlog

from slotway.drivers.base import (
    ContainerId,
    ContainerSpec,
    Driver,
    DriverError,
    InitError,
    Label,
)
from slotway.errors import SlotwayError
from slotway.manager.container import Container
from slotway.manager.inbox import Ended, Inbox, Listed, Started
from slotway.v1 import ledger_pb2
from slotway.v1.ledger_pb2 import (
    CONTAINER_STATE_CREATING,
    CONTAINER_STATE_INITIALISING,
)

log = structlog.get_logger(__name__)

CREATES_MAX = max(4, 2 * (os.cpu_count() or 1))
"""Containers that the driver creates at once."""
INITS_MAX = 2 * CREATES_MAX
INIT_GRACE_S = 5.0
"""Past the driver's own time limit for an init."""
ENGINE_S = 10.0
"""For every other word with the engine."""
LOOK_S = 2.0
"""For a new leader's first look: requests wait for it."""
_NO_ACTION = ledger_pb2.ActionRecord()
DESTROY_RETRY_S = 1.0
DESTROY_RETRY_S_MAX = 15.0


class CodeReader(Protocol):
    """Where the actions' code is."""

    async def get(self, sha256: str) -> bytes:
        """The code with this checksum."""


class Starts:
    """Creates, initialises and destroys containers as their records say."""

    def __init__(
        self,
        driver: Driver,
        code: CodeReader,
        inbox: Inbox,
        *,
        create_s: float = 60.0,
        init_s: float = 60.0,
        api_host: str = "",
    ) -> None:
        """`api_host` is where actions are told to invoke others; empty: nowhere."""
        self._driver, self._code, self._inbox = driver, code, inbox
        self._create_s, self._init_s = create_s, init_s
        self._api_host = api_host
        self._creating = asyncio.Semaphore(CREATES_MAX)
        self._initialising = asyncio.Semaphore(INITS_MAX)
        self._kept: tuple[str, bytes] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def attend(
        self,
        container: Container,
        action: ledger_pb2.ActionRecord | None,
        label: Label,
        ledger: str = "",
    ) -> None:
        """Begins what the recorded state asks for, unless that is under way or done.

        `action` is None if the container's revision of it is no longer there; `ledger` is the id of
        the count that its address is from.
        """
        state = container.state
        if container.task_state == state or container.ended:
            return
        if container.failed and state != ledger_pb2.CONTAINER_STATE_DESTROYING:
            return
        match state:
            case ledger_pb2.CONTAINER_STATE_CREATING if action is not None or container.is_cell:
                # A stem cell is of no action, and has nothing that only an action can ask for.
                work = self._create(container, label, action or _NO_ACTION, ledger)
            case ledger_pb2.CONTAINER_STATE_INITIALISING if action is not None:
                work = self._initialise(container, action)
            case ledger_pb2.CONTAINER_STATE_DESTROYING:
                work = self._destroy(container)
            case _:
                return
        if container.task is not None:
            container.task.cancel()
        container.task_state = state
        container.task = asyncio.create_task(work, name=f"container-{container.id}")
        self._tasks.add(container.task)
        container.task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancels everything; containers live on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _create(
        self, container: Container, label: Label, action: ledger_pb2.ActionRecord, ledger: str
    ) -> None:
        error: SlotwayError | None = None
        try:
            async with self._creating, asyncio.timeout(self._create_s):
                self._check_engine(container)
                container.begun = True
                record = container.record
                await self._driver.create(
                    ContainerSpec(
                        label,
                        record.kind,
                        record.made_for,
                        record.memory_mib,
                        record.address,
                        ledger,
                        image=action.image,
                        concurrent=action.concurrent,
                        network=action.network,
                    )
                )
        except TimeoutError:
            error = DriverError(f"the container was not there after {self._create_s:.0f} s")
        except SlotwayError as exc:
            error = exc
        except Exception as exc:
            log.exception("the driver failed to create a container", container=container.id)
            error = DriverError(f"creating a container failed: {exc}")
        self._inbox.put(Started(container.id, CONTAINER_STATE_CREATING, error))

    async def _initialise(self, container: Container, action: ledger_pb2.ActionRecord) -> None:
        error: SlotwayError | None = None
        try:
            async with self._initialising, asyncio.timeout(self._init_s + INIT_GRACE_S):
                code = await self._read(action.code_sha256)
                await self._driver.init(
                    ContainerId(container.id),
                    init_value(action, code, self._api_host),
                    timedelta(seconds=self._init_s),
                )
        except TimeoutError:
            error = InitError(f"the code was not initialised after {self._init_s:.0f} s")
        except SlotwayError as exc:
            error = exc
        except Exception as exc:
            log.exception("the driver failed to initialise a container", container=container.id)
            error = DriverError(f"initialising a container failed: {exc}")
        self._inbox.put(Started(container.id, CONTAINER_STATE_INITIALISING, error))

    async def _read(self, sha256: str) -> bytes:
        """The code; what was read last is kept, as containers come in crowds. An image may do
        without."""
        if not sha256:
            return b""
        if self._kept is None or self._kept[0] != sha256:
            self._kept = (sha256, await self._code.get(sha256))
        return self._kept[1]

    async def _destroy(self, container: Container) -> None:
        """Asks again and again, until the engine says that the container has ended."""
        pause = DESTROY_RETRY_S
        name = ContainerId(container.id)
        while True:
            try:
                self._check_engine(container)
                async with asyncio.timeout(ENGINE_S):
                    await self._driver.destroy(name)
                    if await self._driver.has_ended(name):
                        self._inbox.put(Ended(container.id))
                        return
            except TimeoutError:
                log.warning("the engine does not answer", container=container.id)
            except DriverError as exc:
                log.warning("a container cannot be ended", container=container.id, why=str(exc))
            except Exception:
                log.exception("the driver failed to end a container", container=container.id)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(DESTROY_RETRY_S_MAX, pause * 1.5)

    async def follow_ends(self) -> None:
        """Puts every end that the engine proves into the inbox, for ever."""
        while True:
            try:
                async for container in self._driver.ends():
                    self._inbox.put(Ended(container))
            except DriverError as exc:
                log.warning("the engine's events broke off", why=str(exc))
            await asyncio.sleep(DESTROY_RETRY_S)

    async def take_stock(self, recorded: list[str]) -> None:
        """Asks the engine for all containers, and which of the recorded ones have ended."""
        with contextlib.suppress(TimeoutError):
            try:
                async with asyncio.timeout(ENGINE_S):
                    found = await self._driver.list()
                    there = {one.label.id for one in found if one.running}
                    ended = [
                        name
                        for name in recorded
                        if name not in there and await self._driver.has_ended(ContainerId(name))
                    ]
                self._inbox.put(Listed(found, ended))
            except DriverError as exc:
                log.warning("the engine does not list its containers", why=str(exc))

    async def running(self) -> set[str] | None:
        """What runs at present; None if the engine does not say so at once."""
        try:
            async with asyncio.timeout(LOOK_S):
                return {one.label.id for one in await self._driver.list() if one.running}
        except (DriverError, TimeoutError) as exc:
            log.warning("the engine does not list its containers", why=str(exc))
            return None

    async def remove_stray(self, container: ContainerId) -> None:
        """Ends a container that no record speaks of."""
        try:
            async with asyncio.timeout(ENGINE_S):
                await self._driver.destroy(container)
        except (DriverError, TimeoutError) as exc:
            log.warning("a stray container cannot be ended", container=container, why=str(exc))

    def check(self, container: Container) -> None:
        """Looks soon whether this container has ended: somebody could not reach it."""

        async def look() -> None:
            with contextlib.suppress(DriverError, TimeoutError):
                self._check_engine(container)
                async with asyncio.timeout(ENGINE_S):
                    if await self._driver.has_ended(ContainerId(container.id)):
                        self._inbox.put(Ended(container.id))

        task = asyncio.create_task(look(), name=f"check-{container.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _check_engine(self, container: Container) -> None:
        """Another engine knows nothing of the container, which is no proof that it has ended."""
        if not made_by(self._driver, container):
            raise DriverError(
                f"it is of the engine {container.record.engine!r}, and this Manager's is "
                f"{self._driver.engine()!r}: a Manager of the former has to lead"
            )


def made_by(driver: Driver, container: Container) -> bool:
    """Whether the driver's engine is the one that the container is recorded of."""
    record = container.record
    return record.driver == driver.name and record.engine == driver.engine()


def init_value(
    action: ledger_pb2.ActionRecord, code: bytes, api_host: str = ""
) -> dict[str, object]:
    """The value of `/init`, as OpenWhisk's action interface has it: without code for an image that
    has its own."""
    namespace, _, name = action.name.partition("/")
    text = base64.b64encode(code).decode() if action.binary else code.decode()
    return {
        "name": name,
        "main": action.main or "main",
        **({"code": text} if code else {}),
        "binary": action.binary,
        "concurrency": action.concurrency,  # beyond OpenWhisk's: a stem cell is made for more
        "env": {
            "__OW_NAMESPACE": namespace,
            "__OW_ACTION_NAME": f"/{action.name}",
            "__OW_ACTION_VERSION": str(action.revision),
            **({"__OW_API_HOST": api_host} if api_host else {}),
        },
    }
