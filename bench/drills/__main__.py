"""Measures failovers, and writes bench/results: see `make drills-bench`.

Exits 0 even where a goal is missed: the figures say so, and whoever reads them decides.
"""

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import figure

from drills import faults
from drills.crowd import CONTAINERS, Crowd
from drills.event import Outcome, repeat
from drills.faults import Sample
from drills.load import Account
from drills.world import World

QUICK = 3
ETCD_OPTIONS = ("--heartbeat-interval=30", "--election-timeout=300")
"""See docs/operations.md: for members on one machine, or in one rack."""


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the table: how often, in what world, and the most that its figures may be."""

    repetitions: int
    once: Callable[[World], Awaitable[Sample]]
    goals: dict[str, float]
    deadline_s: float = 30.0
    world: dict[str, Any] = field(default_factory=dict)
    sessions: int = 0
    """Of a crowd: so many more, with 5,000 containers."""


THREE = {"members": 3, "etcd_options": ETCD_OPTIONS}
EVENTS = {
    "handover": Event(200, faults.handover, {"p99": 100}),
    "killed": Event(200, faults.killed, {"p50": 50, "p99": 250}),
    "stopped": Event(200, faults.stopped, {"p99": 700}),
    "etcd-leader-killed": Event(30, faults.etcd_leader_killed, {"over_etcd_max": 100}, world=THREE),
    "etcd-away": Event(5, faults.etcd_away(), {"max": 1000}, world=THREE),
    "crowd-3": Event(5, faults.killed, {}, sessions=3),
    "crowd-50": Event(5, faults.killed, {}, sessions=50),
    "crowd-200": Event(20, faults.killed, {"max": 500}, sessions=200),
    "crowd-500": Event(5, faults.killed, {}, sessions=500),
}
PARTS = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def figures_of(outcome: Outcome, goals: dict[str, float]) -> list[figure.Figure]:
    """The event's figures; what broke is among them."""
    area = f"drills-{outcome.name}"
    times = f"{len(outcome.samples)} times; load {os.getloadavg()[0]:.1f}"
    if outcome.broken:
        times += f"; {len(outcome.broken)} more broke: {outcome.broken[0][:80]}"
    found = []

    def add(metric: str, value: float | None, note: str = times) -> None:
        found.append(figure.Figure(f"{area}.{metric}_ms", value, "ms", goals.get(metric), note))

    for name, part in PARTS.items():
        add(name, outcome.quantile(part, lambda sample: sample.share_ms))
    if "over_etcd_max" in goals:
        over = outcome.quantile(1.0, lambda sample: sample.share_ms - (sample.etcd_ms or 0))
        etcd = [sample.etcd_ms or 0 for sample in outcome.samples]
        note = f"beyond a raw writer's first put, which came after {min(etcd, default=0):.0f} … "
        add("over_etcd_max", over, f"{note}{max(etcd, default=0):.0f} ms")
    add("cold_answer_p99", outcome.quantile(0.99, lambda sample: sample.answer_ms), "")
    add("pause_max", outcome.quantile(1.0, lambda s: s.pause_ms), "of the new leader's event loop")
    account = outcome.account
    note = f"of {account.requests:,} warm requests; {account.late:,} took more than 100 ms"
    if account.failed:
        note += f"; {', '.join(f'{why}: {count}' for why, count in account.failed.items())}"
    failed = float(sum(account.failed.values()))
    found.append(figure.Figure(f"{area}.warm_failed", failed, "", 0, note))
    return found


def total(account: Account) -> figure.Figure:
    """All requests together: what the containers themselves saw."""
    seen = ", ".join(f"{name.partition('/')[2]}: {most}" for name, most in account.seen.items())
    note = f"in {account.requests:,} requests under faults; at once in a container, {seen}"
    return figure.Figure("drills-total.over_c", float(max(0, account.over)), "", 0, note)


async def measure(
    event: Event, outcome: Outcome, folder: Path, say: Callable[[str], None]
) -> list[figure.Figure]:
    """One row of the table."""
    try:
        async with contextlib.AsyncExitStack() as stack:
            world = await stack.enter_async_context(World(folder, **event.world))
            if event.sessions:
                say(f"{outcome.name}: {CONTAINERS:,} containers come")
                await stack.enter_async_context(Crowd(world, event.sessions))
            await repeat(outcome, world, event.once, say)
    except Exception as exc:
        say(f"{outcome.name}: {exc!r}")
        left = outcome.wanted - len(outcome.samples) - len(outcome.broken)
        outcome.broken += [f"{exc!r}"] * left
    return figures_of(outcome, event.goals)


def main() -> None:
    """Runs the events one after the other."""
    parser = argparse.ArgumentParser(prog="make drills-bench", description=__doc__)
    parser.add_argument("--events", default=",".join(EVENTS), help="with commas between")
    parser.add_argument("--reps", type=int, default=0, help="at most so many of each")
    parser.add_argument("--quick", action="store_true", help=f"as --reps {QUICK}")
    parser.add_argument("--away", type=float, default=0, help="etcd's absence; 60 s, quick 10 s")
    arguments = parser.parse_args()
    away_s = arguments.away or (10.0 if arguments.quick else faults.AWAY_S)
    names = arguments.events.split(",")
    if unknown := set(names) - set(EVENTS):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(EVENTS)}")
    most = arguments.reps or (QUICK if arguments.quick else 10**6)
    began, account, figures = time.monotonic(), Account(), []

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)

    for name in names:
        event = EVENTS[name]
        if name == "etcd-away":
            event = replace(event, once=faults.etcd_away(away_s), deadline_s=120 + away_s)
        outcome = Outcome(name, min(most, event.repetitions), event.deadline_s)
        with tempfile.TemporaryDirectory(prefix="slotway-", ignore_cleanup_errors=True) as folder:
            figures += asyncio.run(measure(event, outcome, Path(folder) / "w", say))
        account.add(outcome.account)
        figure.write([*figures, total(account)])
    report = (figure.RESULTS / "report.md").read_text(encoding="utf-8").splitlines()
    print("\n".join(line for line in report if line.startswith(("| figure", "|--", "| drills"))))


if __name__ == "__main__":
    main()
