"""Fixtures of the integration tests."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slotway.etcd import Client
from slotway.etcd.server import EtcdServer
from tests.integration.manager_world import World


@pytest.fixture
async def world(etcd: Client, etcd_server: EtcdServer, cluster: str) -> AsyncIterator[World]:
    """A cluster of its own on the session's etcd."""
    with tempfile.TemporaryDirectory(prefix="slotway-") as folder:
        world = World(etcd, etcd_server.endpoint, cluster, Path(folder))
        yield world
        for container in list(world.engine.containers):
            world.engine.end(container)
