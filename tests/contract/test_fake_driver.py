"""What tests and benches tell the fake driver to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from slotway.drivers.base import ContainerId, DriverError

from .containers import ECHO, SOON, FakeWorld, code, run, spec, told

ONE = ContainerId("one")


@pytest.fixture
async def world(short_path: Path) -> AsyncIterator[FakeWorld]:
    world = FakeWorld(short_path)
    yield world
    await world.close()


async def test_it_answers_without_code(world: FakeWorld) -> None:
    async with world.driver() as driver:
        await driver.create(spec(ONE))
        await driver.init(ONE, code("this is not even Python"), SOON)
        assert await run(driver.address(ONE), a=1) == {}


async def test_runs_gather_over_all_containers(world: FakeWorld) -> None:
    two = ContainerId("two")
    async with world.driver() as driver:
        for name in (ONE, two):
            await driver.create(spec(name))
            await driver.init(name, code(""), SOON)
        first = asyncio.create_task(run(driver.address(ONE), gather=2))
        assert not (await asyncio.wait([first], timeout=0.1))[0]
        assert await run(driver.address(two), gather=2) == {}
        assert await first == {}


async def test_it_warns(world: FakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    async with world.driver():
        assert "RUNS NO CODE" in caplog.text


async def test_creations_fail_when_told_so(world: FakeWorld) -> None:
    world.engine.create_error = "no room"
    async with world.driver() as driver:
        with pytest.raises(DriverError, match="no room"):
            await driver.create(spec(ONE))
        assert await driver.list() == []
        world.engine.create_error = ""
        await driver.create(spec(ONE))


async def test_a_container_that_ends_cuts_its_requests(world: FakeWorld) -> None:
    world.engine.run_s = 3600
    async with world.driver() as driver:
        await driver.create(spec(ONE))
        await driver.init(ONE, code(ECHO), SOON)
        running = asyncio.create_task(run(driver.address(ONE)))
        container = world.engine.containers[ONE]
        async with asyncio.timeout(10):
            while not container.tasks:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)
        world.engine.end(ONE)
        with pytest.raises(aiohttp.ClientError):
            await running
        await told(driver, ONE)
