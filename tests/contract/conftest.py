"""Fixtures of the contract suites."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slotway.activations import Store

from .containers import DockerWorld
from .postgres import NoPostgresError, PostgresServer

_without_postgres: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for why in _without_postgres:
        terminalreporter.write_line(f"NOTHING WAS TESTED ON POSTGRESQL: {why}", yellow=True)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    try:
        server = PostgresServer()
    except NoPostgresError as error:
        _without_postgres[:] = [str(error)]
        pytest.skip(f"PostgreSQL: {error}")
    with server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the whole session; each test begins with `empty`."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server for one test, which may stop and restart it."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'activations.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.empty()


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An opened store, with nothing in it."""
    opened = Store(store_url)
    yield opened
    opened.close()


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
