"""Every planted bug is found by its seed; the one list of both."""

from __future__ import annotations

import subprocess
import sys

import pytest

SEEDS = {
    "TellFirst": 1,
    "PersistBeforeAck": 1,
    "AckEarly": 1,
    "AnyAck": 2,
    "NoTerm": 1,
    "HelloHeldOnly": 4,
    "HelloMaxOnly": 75,
    "FreeDeadRouter": 1,
    "GiveBackUnheard": 3,
    "GiveBackKept": 3,
    "StrandFrees": 24,
    "ChainWithoutGuard": 3,
    "ChainWithoutTurn": 85,
    "SettledByReading": 4,
    "FreeOnHangup": 5,
    "RunAgain": 7,
    "SameIncarnation": 1,
    "AddressReused": 1,
    "EndWithoutProof": 5,
    "EndsUntold": 14,
    "DemandToldOnce": 3,
    "NeverRebalanced": 12,
}
"""What changes the simulation's choices changes these: `python -m tests.simulation --seeds 1-150
--planted NAME` finds others."""


@pytest.mark.planted
@pytest.mark.parametrize(("bug", "seed"), list(SEEDS.items()))
def test_a_planted_bug_is_found(bug: str, seed: int) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--planted", bug, "--seeds", str(seed)],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
