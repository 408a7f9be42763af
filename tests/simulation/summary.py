"""What a run of many seeds has seen; one that explored nothing has failed."""

from __future__ import annotations

import sys
import time
from collections import Counter

from tests.simulation.world import Findings

SAY_S = 10.0
EXPLORED = (
    "log: leader",
    "log: a commit was not answered",
    "log: the ledger is read anew",
    "log: the leader seems dead",
    "log: handed over",
    "log: etcd view lists anew",
    "log: a router is gone",
    "proposals applied late",
    "held",
    "requests forwarded",
    "requests: CONTAINER_LOST",
    "slots filled at the end",
)
"""What has to have happened in a run of many seeds, or it explored nothing."""
EXPLORED_SEEDS = 200
"""So many seeds have to have seen all of it."""


class Summary:
    """Of many seeds."""

    def __init__(self) -> None:
        self.seeds = self.events = self.failed = 0
        self.virtual_s = 0.0
        self.count: Counter[str] = Counter()
        self._said = 0.0

    def add(self, findings: Findings) -> None:
        """One more seed."""
        self.seeds += 1
        self.events += findings.events
        self.failed += bool(findings.failures)
        self.virtual_s += findings.virtual_s
        self.count.update(findings.count)

    def say(self, seeds: int) -> None:
        """Progress, at times."""
        now = time.monotonic()
        if now - self._said >= SAY_S:
            self._said = now
            print(f"{self.seeds} of {seeds} seeds, {self.failed} failed", file=sys.stderr)

    def unexplored(self) -> list[str]:
        """What should have happened at least once, and did not."""
        if self.seeds < EXPLORED_SEEDS:
            return []
        return [what for what in EXPLORED if not self.count[what]]

    def report(self, took_s: float) -> None:
        """What was done."""
        for what, times in sorted(self.count.items()):
            print(f"{times:10} {what}")
        print(
            f"{self.seeds} seeds, {self.events} events ({self.events / took_s:.0f}/s), "
            f"{self.virtual_s:.0f} s of virtual time in {took_s:.0f} s; {self.failed} seeds failed"
        )
        for what in self.unexplored():
            print(f"never happened: {what}")
