"""The Docker driver and an engine that is away, hangs, or need not be asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from slotway.drivers.base import ContainerId, DriverError, UnfitError
from slotway.drivers.docker import DockerOptions

from .containers import ECHO, SOON, DockerWorld, code, told

pytestmark = pytest.mark.docker
ONE, TWO = ContainerId("one"), ContainerId("two")
HOUR = timedelta(hours=1)


class Wire:
    """A socket in front of the engine's, which a test cuts, and makes silent. Each request comes on
    a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.silent = asyncio.Event()
        """Set: nothing passes."""
        self.deaf = False
        """No events pass."""
        self.asked: list[str] = []
        """The requests: method and path."""
        self.followed = asyncio.Event()
        """Set when the events are asked for."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self.path)

    async def cut(self) -> None:
        """As when the engine stops."""
        if self._server is not None:
            self._server.close()
            self._server = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        head = await reader.readuntil(b" HTTP/1.1\r\n")
        self.asked.append(head.decode().removesuffix(" HTTP/1.1\r\n"))
        events = b"/events?" in head
        if events:
            self.followed.set()
        far_reader, far_writer = await asyncio.open_unix_connection(DockerOptions().socket)
        far_writer.write(head)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, far_writer))
                both.create_task(self._pass(far_reader, writer, events))
        except* OSError:
            pass
        finally:
            for each in writer, far_writer:
                each.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, events: bool = False
    ) -> None:
        while data := await reader.read(65536):
            if self.silent.is_set() or (events and self.deaf):
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


@pytest.fixture
async def wire(short_path: Path) -> AsyncIterator[Wire]:
    wire = Wire(short_path / "engine.sock")
    await wire.open()
    yield wire
    await wire.cut()


async def test_no_engine_says_what_to_do(tmp_path: Path, docker_world: DockerWorld) -> None:
    driver = docker_world.driver(socket=str(tmp_path / "none.sock"))
    with pytest.raises(DriverError, match=r"none\.sock cannot be used.*Is it installed") as failed:
        await driver.start()
    assert "docker_socket" in str(failed.value)


async def test_an_end_while_the_engine_was_away_is_told(
    docker_world: DockerWorld, wire: Wire
) -> None:
    """By the events alone, which begin anew: the reconcile is far away."""
    async with docker_world.driver(socket=wire.path, reconcile=HOUR) as driver:
        await driver.create(docker_world.spec(ONE))
        await wire.cut()
        with pytest.raises(DriverError, match="cannot be used"):
            await driver.has_ended(ONE)
        docker_world.crash(ONE)
        await wire.open()
        await told(driver, ONE)


async def test_a_silent_engine_is_waited_for_only_so_long(
    docker_world: DockerWorld, wire: Wire
) -> None:
    """The events are as silent: what happened meanwhile is found by the reconcile."""
    short = timedelta(seconds=1)
    async with docker_world.driver(socket=wire.path, answer=short) as driver:
        await driver.create(docker_world.spec(ONE))
        await driver.create(docker_world.spec(TWO))
        wire.silent.set()
        for asking in driver.list(), driver.has_ended(ONE), driver.init(ONE, {}, SOON):
            with pytest.raises(DriverError, match="did not answer within 1 s"):
                await asking
        await driver.destroy(TWO)
        docker_world.crash(ONE)
        wire.silent.clear()
        await told(driver, ONE, TWO)


async def test_a_silent_engine_cannot_say_what_an_image_can_do(
    docker_world: DockerWorld, wire: Wire
) -> None:
    soon = timedelta(seconds=0.5)
    async with docker_world.driver(socket=wire.path, answer=soon) as driver:
        wire.silent.set()
        await driver.check("python:3", "", 1)
        with pytest.raises(DriverError, match="did not answer") as failed:
            await driver.check("python:3", "", 2)
        assert not isinstance(failed.value, UnfitError)


# An engine that need not be asked.


async def test_code_is_loaded_without_asking_whether_the_container_runs(
    docker_world: DockerWorld, wire: Wire
) -> None:
    """What the engine said is true for as long as its events are heard, and tell nothing else."""
    async with docker_world.driver(socket=wire.path, reconcile=HOUR) as driver:
        for name in ONE, TWO:
            await driver.create(docker_world.spec(name))
        wire.asked.clear()
        await driver.init(ONE, code(ECHO), SOON)
        assert wire.asked == []
        await wire.cut()
        wire.followed.clear()
        await wire.open()
        await wire.followed.wait()
        wire.asked.clear()
        await driver.init(TWO, code(ECHO), SOON)
        assert any(docker_world.name(TWO) in one for one in wire.asked)


@pytest.mark.parametrize("heard", ["events", "listing", "nothing"])
async def test_no_code_goes_to_whoever_has_the_address_now(
    docker_world: DockerWorld, wire: Wire, heard: str
) -> None:
    """It is never given twice; but if it were, the engine's word on the container counts."""
    reconcile = timedelta(seconds=0.2) if heard == "listing" else HOUR
    async with (
        docker_world.driver(socket=wire.path, reconcile=reconcile) as driver,
        docker_world.driver() as other,
    ):
        await driver.create(docker_world.spec(ONE))
        wire.deaf = heard == "listing"
        if heard == "nothing":
            await wire.cut()
        await other.destroy(ONE)
        await told(other, ONE)
        if heard != "nothing":
            await told(driver, ONE)
        await other.create(replace(docker_world.spec(TWO), address=docker_world.spec(ONE).address))
        if heard == "nothing":
            wire.followed.clear()
            await wire.open()
            await wire.followed.wait()
        with pytest.raises(DriverError, match="container one has ended"):
            await driver.init(ONE, code(ECHO), SOON)
        await other.init(TWO, code(ECHO), SOON)
