"""Fixtures for tests of every kind."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from slotway.etcd import Access, Client
from slotway.etcd.server import EtcdServer

OPTIONS = ("--unsafe-no-fsync", "--log-level=warn")
_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EtcdServer]:
    """One etcd for the whole session: give every test a prefix of its own (`cluster`)."""
    folder = tmp_path_factory.mktemp("etcd")
    server = EtcdServer(folder / "data", folder / "etcd.log", options=OPTIONS)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def own_etcd(tmp_path: Path) -> AsyncIterator[EtcdServer]:
    """An etcd for one test, which may stop, restart and compact it."""
    server = EtcdServer(tmp_path / "etcd data", tmp_path / "etcd.log", options=OPTIONS)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def etcd(etcd_server: EtcdServer) -> AsyncIterator[Client]:
    """A client of the session's etcd."""
    async with Client(Access(endpoints=(etcd_server.endpoint,))) as client:
        yield client


@pytest.fixture
def cluster() -> str:
    """A cluster name that no other test uses."""
    return f"test-{next(_numbers)}"
