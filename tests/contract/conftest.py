"""Fixtures of the contract suites."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for the name of a Unix socket; pytest's own may not."""
    with tempfile.TemporaryDirectory(prefix="slotway-") as path:
        yield Path(path)
