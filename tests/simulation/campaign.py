"""Many seeds, on several processes: all have to hold, or one has to find a planted bug."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace

from tests.simulation.summary import Summary
from tests.simulation.world import Findings, World


@dataclass(frozen=True)
class Job:
    """What is to be run; `planted` is the name of a bug."""

    seeds: range
    events: int
    workers: int
    show: bool
    planted: str


def hold(job: Job) -> int:
    """Runs all seeds; 1 if one failed, or if too little happened in all of them."""
    began, total = time.monotonic(), Summary()
    for findings in _run(job):
        total.add(findings)
        for failure in findings.failures:
            print(f"seed {findings.seed}: {failure}")
        if findings.failures:
            print(f"  replay: make simulation SEED={findings.seed}", flush=True)
        total.say(len(job.seeds))
    total.report(time.monotonic() - began)
    return 1 if total.failed or total.unexplored() else 0


def find(job: Job) -> int:
    """Runs seeds until one of them fails; 1 if none does."""
    with closing(_run(job)) as findings:
        for count, found in enumerate(findings, 1):
            if found.failures:
                print(f"{job.planted}: found by seed {found.seed}, the {count}. that was tried")
                print(f"  {found.failures[0]}")
                return 0
    print(f"{job.planted}: not found")
    return 1


def _run(job: Job) -> Generator[Findings]:
    if job.workers == 1 or len(job.seeds) == 1:
        for seed in job.seeds:
            yield _one(replace(job, seeds=range(seed, seed + 1)))
        return
    gc.collect()
    gc.freeze()
    jobs = [replace(job, seeds=range(seed, seed + 1)) for seed in job.seeds]
    with multiprocessing.get_context("fork").Pool(job.workers) as pool:
        yield from pool.imap_unordered(_one, jobs, chunksize=4)


def _one(job: Job) -> Findings:
    return World(job.seeds[0], events=job.events, show=job.show, planted=job.planted).run()
