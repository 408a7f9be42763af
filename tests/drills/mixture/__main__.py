"""`python -m tests.drills.mixture`: a cluster of real processes under steady load, while everything
goes wrong that can; ends with a table, and a status other than 0 if a promise was broken.

Promises: every request gets one answer, of an expected kind; the action's own code never sees more
than C at once in a container, nor a run twice; every slot comes back; no container is left over.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.drills.mixture.events import Events
from tests.drills.mixture.load import FULL, STEADY, Load
from tests.drills.mixture.schedule import Kind, schedule
from tests.drills.mixture.settling import settle
from tests.drills.mixture.witness import Witness
from tests.integration.gathering import listen
from tests.integration.parts import Parts

SECONDS = 600
EACH_S = 25.0
"""One event of each kind in so many seconds: 24 in ten minutes."""
PROGRESS_S = 10.0
LATE_S = 90.0
"""Past the end of the schedule, for what was begun."""
CONTAINERS_MAX = {"process": 32, "docker": 14}
OK_SHARE = 0.8
DONE_SHARE = 5 / 6
"""Of the events, at least: some meet a cluster that is busy with others."""
MANAGER = ("--keep-warm", "1h")
ROUTER = ("--give-back", "2s", "--max-wait", "20s")


class Campaign:
    """One run of the mixture."""

    def __init__(self, seed: int, seconds: float, driver: str, each: int) -> None:
        self.seed, self.seconds, self.driver = seed, seconds, driver
        self.each = each
        self.events: Events | None = None
        self.load: Load | None = None
        self.witness: Witness | None = None
        self.broken: list[str] = []

    async def run(self, folder: Path) -> None:
        """All of it; what is broken is in `broken`."""
        cluster = f"mixture-{os.getpid()}"
        flags = (*MANAGER, "--containers-max", str(CONTAINERS_MAX[self.driver]))
        parts = Parts(
            folder / "parts",
            cluster,
            driver=self.driver,
            managers=2,
            manager_flags=flags,
            router_flags=ROUTER,
        )
        witness = self.witness = Witness(listen(self.driver, cluster))
        await witness.start()
        async with parts:
            load = self.load = Load(parts.clients, witness.address)
            self.events = Events(parts, load, witness)
            for kind in (*STEADY, *FULL):
                await load.put(kind.name, parts.clients[0])
            await self._storm(load, self.events)
            self.broken += await settle(parts, load)
            answered = load.answered
        self.broken += witness.verdict(answered)
        witness.stop()
        self._judge(load, self.events, witness)

    async def _storm(self, load: Load, events: Events) -> None:
        """The load, and the events beside it."""
        rng = random.Random(self.seed)
        work = [load.work(kind, rng) for kind in STEADY for _ in range(kind.workers)]
        work.append(load.come_and_go(rng))
        workers = [asyncio.create_task(one) for one in work]
        progress = asyncio.create_task(self._progress())
        try:
            async with asyncio.timeout(self.seconds + LATE_S):
                await events.run(schedule(self.seed, self.seconds, self.each))
        except TimeoutError:
            self.broken.append("the events did not end in time")
        load.stopping.set()
        for worker in asyncio.as_completed(workers):
            await worker
        progress.cancel()

    async def _progress(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(PROGRESS_S)
            assert self.load is not None
            assert self.events is not None
            assert self.witness is not None
            print(
                f"{time.monotonic() - began:5.0f} s  {self.load.sent} requests,"
                f" {self.load.outcomes['ok']} ok; {self.events.done.total()} events;"
                f" {len(self.witness.containers)} containers so far, most at once by C:"
                f" {self.witness.highest()}; {len(self.witness.faults)} faults",
                flush=True,
            )

    def _judge(self, load: Load, events: Events, witness: Witness) -> None:
        if load.sent != load.outcomes.total():
            self.broken.append(f"{load.sent} requests, {load.outcomes.total()} answers")
        self.broken += load.odd
        if load.outcomes["ok"] < OK_SHARE * load.sent:
            self.broken.append(f"only {load.outcomes['ok']} of {load.sent} requests went well")
        for capacity in {kind.concurrency for kind in STEADY}:
            if witness.highest().get(capacity) != capacity:
                self.broken.append(f"C={capacity} was not reached: {witness.highest()}")
        for kind in Kind:
            if events.done[kind] < self.each * DONE_SHARE:
                self.broken.append(f"{kind}: {events.done[kind]} of {self.each} came off")

    def report(self, console: Console) -> None:
        """The tables."""
        assert self.load is not None
        assert self.events is not None
        assert self.witness is not None
        table = Table(title=f"Events of seed {self.seed}, {self.driver}")
        table.add_column("event")
        table.add_column("came off", justify="right")
        for kind in Kind:
            table.add_row(kind, f"{self.events.done[kind]} of {self.each}")
        console.print(table)
        table = Table(title=f"{self.load.sent} requests")
        table.add_column("outcome")
        table.add_column("requests", justify="right")
        for outcome, count in self.load.outcomes.most_common():
            table.add_row(outcome, str(count))
        console.print(table)
        console.print(
            f"The witness saw {len(self.witness.ran_in)} runs in {len(self.witness.containers)}"
            f" containers, {self.witness.cut} of them ended with their container; most at once,"
            f" by C: {self.witness.highest()}"
        )
        for missed in self.events.missed[:10]:
            console.print(f"did not come off: {missed}", markup=False)
        for broken in self.broken:
            console.print(f"BROKEN: {broken}", markup=False)


def main() -> int:
    """Runs a campaign; the exit status."""
    parser = argparse.ArgumentParser(prog="make mixture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--seed", type=int, default=0, help="0: any")
    parser.add_argument("--driver", choices=("process", "docker"), default="process")
    parser.add_argument("--each", type=int, default=0, help="events of each kind; 0: by the time")
    parser.add_argument("--planted-bug", default="", help="of the Routers: it has to be found")
    parser.add_argument("--keep", action="store_true", help="leave the logs of all parts")
    arguments = parser.parse_args()
    seed = arguments.seed or random.SystemRandom().randrange(1, 2**31)
    each = arguments.each or max(1, round(arguments.seconds / EACH_S))
    os.environ["SLOTWAY_ROUTER_PLANTED_BUG"] = arguments.planted_bug
    console = Console(width=None if sys.stdout.isatty() else 100)
    campaign = Campaign(seed, arguments.seconds, arguments.driver, each)
    print(f"mixture: SEED={seed} SECONDS={arguments.seconds:g} DRIVER={arguments.driver}")
    folder = Path(tempfile.mkdtemp(prefix="slotway-mixture-"))
    asyncio.run(campaign.run(folder))
    campaign.report(console)
    if campaign.broken or arguments.keep:
        console.print(f"logs: {folder}/parts/logs; once more: make mixture SEED={seed}")
    else:
        _remove(folder)
    console.print("A promise was broken." if campaign.broken else "Every promise was kept.")
    return 1 if campaign.broken else 0


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
