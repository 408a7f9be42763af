"""Fixtures of the integration tests."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from slotway.etcd import Client
from slotway.etcd.server import EtcdServer
from tests.integration.door import Container, Door, connect, open_door
from tests.integration.manager_world import World

if TYPE_CHECKING:
    from slotway.v1.router_pb2_grpc import RouterServiceAsyncStub


@pytest.fixture
async def world(etcd: Client, etcd_server: EtcdServer, cluster: str) -> AsyncIterator[World]:
    """A cluster of its own on the session's etcd."""
    with tempfile.TemporaryDirectory(prefix="slotway-") as folder:
        world = World(etcd, etcd_server.endpoint, cluster, Path(folder))
        yield world
        for container in list(world.engine.containers):
            world.engine.end(container)


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[Container]:
    """A container on a Unix socket, told by the test what to do."""
    async with Container(tmp_path / "c.sock") as container:
        yield container


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A front door by itself."""
    async with open_door(tmp_path / "python.sock") as door:
        yield door


@pytest.fixture
async def client(door: Door) -> AsyncIterator[RouterServiceAsyncStub]:
    """A client of that door."""
    async with connect(door.address) as client:
        yield client
