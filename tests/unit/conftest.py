"""What the tests of a Router's session run against."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.scripted import ScriptedManager, ScriptedPlane, scripted_manager


@pytest.fixture
async def plane() -> AsyncIterator[ScriptedPlane]:
    plane = ScriptedPlane()
    yield plane
    plane.close()


@pytest.fixture
async def manager() -> AsyncIterator[ScriptedManager]:
    async with scripted_manager() as manager:
        yield manager


@pytest.fixture
async def second() -> AsyncIterator[ScriptedManager]:
    async with scripted_manager() as manager:
        yield manager
