"""Fixtures of the contract suites."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from .containers import DockerWorld


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for the name of a Unix socket; pytest's own may not."""
    with tempfile.TemporaryDirectory(prefix="slotway-") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def docker_network() -> Iterator[None]:
    """What the tests leave to one another, and to nobody else: the network."""
    yield

    async def dissolve() -> None:
        async with DockerWorld().driver() as driver:
            await driver.dissolve()

    asyncio.run(dissolve())


@pytest.fixture
async def docker_world(docker_network: None) -> AsyncIterator[DockerWorld]:
    """The engine, without any container of ours."""
    world = DockerWorld()
    yield world
    await world.close()
