"""Every planted bug is found by its seed; the one list of both."""

from __future__ import annotations

import subprocess
import sys

import pytest

SEEDS: dict[str, int] = {}


@pytest.mark.planted
@pytest.mark.parametrize(("bug", "seed"), list(SEEDS.items()))
def test_a_planted_bug_is_found(bug: str, seed: int) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--planted", bug, "--seeds", str(seed)],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
