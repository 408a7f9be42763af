"""What every driver promises (`slotway.drivers.base`)."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from slotway.drivers import open_driver
from slotway.drivers.base import ContainerId, DriverError, InitError, UnfitError

from .containers import (
    ECHO,
    PATIENCE_S,
    SOON,
    DockerWorld,
    Engine,
    FakeWorld,
    ProcessWorld,
    code,
    connect,
    end_all,
    post,
    run,
    told,
)

ONE = ContainerId("one")


@pytest.fixture(params=["process", "fake", pytest.param("docker", marks=pytest.mark.docker)])
async def engine(
    request: pytest.FixtureRequest, tmp_path: Path, short_path: Path
) -> AsyncIterator[Engine]:
    if request.param == "docker":
        request.getfixturevalue("docker_network")
        docker = DockerWorld()
        yield docker
        await docker.close()
        return
    if request.param == "fake":
        fake = FakeWorld(short_path)
        yield fake
        await fake.close()
        return
    world = ProcessWorld(tmp_path, short_path)
    yield world
    await end_all(world)


async def test_a_created_container_is_listed_and_accepts(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.create(engine.spec(ONE))
        [found] = await driver.list()
        assert found.label == engine.spec(ONE).label
        assert found.running
        assert found.address == engine.spec(ONE).address
        assert not await driver.has_ended(ONE)
        status, _ = await post(engine.spec(ONE).address, "/nothing", {})
        assert status == 404


async def test_what_can_be_asked_for_is_known_beforehand(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.check("python:3", "", 1)
        await driver.check("python:3", "", 200)
        if driver.name == "docker":
            # Whether it is there is asked when it matters.
            await driver.check("blackbox", "slotway/none:1", 1)
            return
        spec = replace(engine.spec(ONE), kind="blackbox", image="slotway/none:1")
        for refused in driver.check("blackbox", "slotway/none:1", 1), driver.create(spec):
            with pytest.raises(UnfitError, match=r"slotway/none:1: .* Docker driver") as failed:
                await refused
            assert failed.value.what == "image"
        assert await driver.list() == []


async def test_creating_again_adopts(engine: Engine) -> None:
    async with engine.driver() as driver, engine.driver() as second:
        await driver.create(engine.spec(ONE))
        await driver.create(engine.spec(ONE))
        await second.create(engine.spec(ONE))
        assert len(await driver.list()) == 1


async def test_an_initialised_container_runs(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.create(engine.spec(ONE))
        await driver.init(ONE, code(ECHO), SOON)
        assert isinstance(await run(engine.spec(ONE).address, a=1), dict)


async def test_init_happens_once(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.create(engine.spec(ONE))
        await driver.init(ONE, code(ECHO), SOON)
        with pytest.raises(InitError, match="more than once"):
            await driver.init(ONE, code(ECHO), SOON)


async def test_code_that_fails_to_initialise_tells_its_error(engine: Engine) -> None:
    async with engine.driver() as driver:
        value = engine.break_init("no such model")
        await driver.create(engine.spec(ONE))
        with pytest.raises(InitError, match="no such model"):
            await driver.init(ONE, value, SOON)


async def test_init_of_a_container_that_is_gone(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.create(engine.spec(ONE))
        engine.crash(ONE)
        await told(driver, ONE)
        with pytest.raises(DriverError):
            await driver.init(ONE, code(ECHO), SOON)


async def test_destroying_ends_a_container_for_good(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.create(engine.spec(ONE))
        await driver.destroy(ONE)
        await driver.destroy(ONE)
        await told(driver, ONE)
        assert await driver.has_ended(ONE)
        assert await driver.list() == []
        with pytest.raises(OSError) as failed:  # noqa: PT011 - the numbers say which
            await connect(engine.spec(ONE).address)
        assert failed.value.errno in (errno.ECONNREFUSED, errno.ENOENT, errno.EHOSTUNREACH)


async def test_destroying_can_be_repeated_after_the_end(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.create(engine.spec(ONE))
        for _ in range(2):
            await driver.destroy(ONE)
            await told(driver, ONE)


async def test_a_crash_is_told(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.create(engine.spec(ONE))
        assert driver.ending(ONE) == ""
        engine.crash(ONE)
        await told(driver, ONE)
        assert any(word in driver.ending(ONE) for word in ("SIGKILL", "status 137"))
        assert await driver.has_ended(ONE)


async def test_what_a_container_printed_is_kept(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.create(engine.spec(ONE))
        says = "def main(args):\n    print('hello', args['number'])\n    return {}\n"
        await driver.init(ONE, code(says), SOON)
        for number in range(2):
            await run(engine.spec(ONE).address, number=number)
        if driver.name == "fake":
            assert await driver.log(ONE) == b""
            return
        # The engine takes it out of a pipe.
        async with asyncio.timeout(10):
            while b"hello 1" not in await driver.log(ONE):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        lines = (await driver.log(ONE)).decode().splitlines()
        assert [line.split(" ", 1)[1] for line in lines if "hello" in line] == [
            "a1 stdout: hello 0",
            "a1 stdout: hello 1",
        ]
        with pytest.raises(DriverError, match="no log is kept of container two"):
            await driver.log(ContainerId("two"))


async def test_how_a_container_ended_is_told_in_words(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.create(engine.spec(ONE))
        assert driver.ending(ONE) == ""
        engine.crash(ONE)
        await told(driver, ONE)
        how = {
            "docker": "its program ended with status 137",
            "process": "SIGKILL",
            "fake": "SIGKILL",
        }
        assert driver.ending(ONE) == how[driver.name]


async def test_an_unknown_container_has_ended_and_is_told(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.destroy(ONE)
        await told(driver, ONE)
        assert await driver.has_ended(ContainerId("two"))


async def test_an_id_that_has_ended_is_never_used_again(engine: Engine) -> None:
    """A creation may come late, from a Manager that was paused: its address must stay dead."""
    async with engine.driver() as driver, engine.driver() as paused:
        assert await driver.has_ended(ONE)
        with pytest.raises(DriverError):
            await paused.create(engine.spec(ONE))
        two = ContainerId("two")
        await driver.create(engine.spec(two))
        await driver.destroy(two)
        await told(driver, two)
        with pytest.raises(DriverError):
            await paused.create(engine.spec(two))
        assert await driver.list() == []


async def test_a_second_driver_sees_containers_and_their_ends(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.create(engine.spec(ONE))
        async with engine.driver() as second:
            assert [found.label.id for found in await second.list()] == [ONE]
            assert not await second.has_ended(ONE)
            await driver.destroy(ONE)
            await told(second, ONE)
            await told(driver, ONE)


async def test_containers_outlive_their_driver(engine: Engine) -> None:
    async with engine.driver() as driver:
        await driver.create(engine.spec(ONE))
        await driver.init(ONE, code(ECHO), SOON)
        before = await run(engine.spec(ONE).address)
        identity = driver.engine()
    async with engine.driver() as driver:
        assert driver.engine() == identity
        assert await run(engine.spec(ONE).address) == before
        engine.crash(ONE)
        await told(driver, ONE)


async def test_containers_of_other_clusters_are_not_listed(engine: Engine) -> None:
    async with engine.driver() as driver, engine.driver("another") as other:
        await driver.create(engine.spec(ONE))
        assert await other.list() == []


async def test_no_descriptor_is_leaked(engine: Engine) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with engine.driver() as driver:
        counts = []
        for round in range(3):
            names = [ContainerId(f"r{round}-{number}") for number in range(4)]
            for name in names:
                await driver.create(engine.spec(name))
                await driver.init(name, code(ECHO), SOON)
                await driver.destroy(name)
            await told(driver, *names)
            counts.append(opened())
        # The driver looks around by itself: a connection to its engine may be open just now.
        async with asyncio.timeout(PATIENCE_S):
            while opened() > counts[1]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_drivers_are_opened_by_name(tmp_path: Path) -> None:
    for name in "process", "fake", "docker":
        assert open_driver(name, "c", tmp_path / "d", tmp_path / "s").name == name
    with pytest.raises(ValueError, match="process, docker, fake"):
        open_driver("podman", "c", tmp_path, tmp_path)
