"""A Router at rest."""

import sys
from pathlib import Path

from figure import Figure
from process import ask, resident_mb, running

PROXY_CORE = 0
ACTIONS = 1_000
SLOTS = 10
GOAL_MB = 150


def measure(directory: Path, quick: bool) -> list[Figure]:
    """The memory of a process with the data plane and the shares of 1,000 actions × 10 slots."""
    del quick
    host = str(Path(__file__).with_name("host.py"))
    address = f"unix:{directory / 'nobody.sock'}"
    command = [sys.executable, host, str(ACTIONS), str(SLOTS), address]
    with running(command, PROXY_CORE) as process:
        ask(process)
        ask(process, "counters")
        memory = resident_mb(process.pid)
    note = f"{ACTIONS:,} actions × {SLOTS} slots"
    return [Figure("router.idle_memory_mb", memory, "MB", GOAL_MB, note)]
