"""`python -m tests.simulation`: many seeds on all processors, or one seed shown."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.simulation.world import Findings, World

EVENTS = 500
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


def main() -> int:
    """Returns 1 if a seed failed, or if nothing was explored."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0-2000", help="first-last (last left out), or one seed")
    parser.add_argument("--events", type=int, default=EVENTS, help="of each seed, at least")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--planted", default="", help="a bug to make on purpose: it must be found")
    parser.add_argument("--show", action="store_true", help="print all that happens")
    asked = parser.parse_args()
    first, _, last = asked.seeds.partition("-")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    began = time.monotonic()
    total = Summary()
    for findings in _run(seeds, asked):
        total.add(findings)
        for failure in findings.failures:
            print(f"seed {findings.seed}: {failure}")
        if findings.failures and not asked.planted:
            print(f"  replay: make simulation SEED={findings.seed}", flush=True)
        if asked.planted and findings.failures:
            print(f"the planted bug {asked.planted} is found by seed {findings.seed}")
            return 0
        total.say(began, len(seeds))
    total.report(began)
    if asked.planted:
        print(f"the planted bug {asked.planted} is not found")
        return 1
    return 1 if total.failed or total.unexplored() else 0


def _run(seeds: range, asked: argparse.Namespace) -> Iterator[Findings]:
    jobs = [(seed, asked.events, asked.show, asked.planted) for seed in seeds]
    if len(jobs) == 1 or asked.show or asked.workers == 1:
        yield from map(_one, jobs)
        return
    with multiprocessing.get_context("fork").Pool(asked.workers, initializer=gc.freeze) as pool:
        yield from pool.imap_unordered(_one, jobs, chunksize=4)


def _one(job: tuple[int, int, bool, str]) -> Findings:
    seed, events, show, planted = job
    return World(seed, events=events, show=show, planted=planted).run()


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

    def say(self, began: float, seeds: int) -> None:
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

    def report(self, began: float) -> None:
        """What was done."""
        took_s = time.monotonic() - began
        for what, times in sorted(self.count.items()):
            print(f"{times:10} {what}")
        print(
            f"{self.seeds} seeds, {self.events} events ({self.events / took_s:.0f}/s), "
            f"{self.virtual_s:.0f} s of virtual time in {took_s:.0f} s; {self.failed} seeds failed"
        )
        for what in self.unexplored():
            print(f"never happened: {what}")


if __name__ == "__main__":
    sys.exit(main())
