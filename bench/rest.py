"""A Manager at rest: the CPU time of its process while containers are held, and nothing is asked.

One Manager and three Routers; the containers' shares are held by the Routers, which costs the
Manager more than containers that nobody holds.
"""

import asyncio
import math
import os
import sys
import time
from pathlib import Path

from figure import ROOT, Figure
from process import cpu_s

sys.path.insert(0, str(ROOT))
from slotway.errors import SlotwayError
from tests.integration.parts import Parts

GOAL_PERCENT = 2.0
LOADS = {"fake": (1000, 10), "docker": (50, 10)}
REST_S = 10.0
CALM_S = 3.0
CODE = b"def main(args): return {}"
MANAGER = ("--keep-warm", "1h", "--containers-max", "1100")


def measure(directory: Path, quick: bool) -> list[Figure]:
    """See the module."""
    figures = []
    for driver, (containers, concurrency) in LOADS.items():
        name = f"rest.manager_{driver}_percent"
        try:
            percents = asyncio.run(run(directory / driver, driver, containers, concurrency))
        except (AssertionError, SlotwayError, TimeoutError) as error:
            if driver != "docker":
                raise
            why = str(error).strip().splitlines()[-1:] or ["no engine"]
            figures.append(Figure(name, None, "%", GOAL_PERCENT, f"not measured: {why[0][:200]}"))
            continue
        note = f"of a core, {containers} containers with C={concurrency}; the least of"
        note += f" {', '.join(f'{one:.1f}' for one in percents)}; load {os.getloadavg()[0]:.1f}"
        figures.append(Figure(name, min(percents), "%", GOAL_PERCENT, note))
    return figures


async def run(directory: Path, driver: str, containers: int, concurrency: int) -> list[float]:
    """Percents of a core, some times over."""
    cluster = f"bench-{os.getpid()}"
    async with Parts(
        directory, cluster, driver=driver, manager_flags=MANAGER, router_flags=("--give-back", "1h")
    ) as parts:
        turns = asyncio.Semaphore(8)

        async def use(number: int) -> None:
            async with turns:
                name = f"rest/a{number}"
                await parts.clients[0].put_action(
                    name, CODE, concurrency=concurrency, memory_mib=64
                )
                await parts.clients[number % 3].invoke(name, {}, timeout=60)

        await asyncio.gather(*(use(number) for number in range(containers)))
        held = [sum(one.record.shares.values()) for one in (await parts.show()).containers]
        assert len(held) == containers
        assert math.prod(held) == concurrency**containers
        await asyncio.sleep(CALM_S)
        percents = []
        for _ in range(3):
            cpu, began = cpu_s(parts.managers[0].pid), time.monotonic()
            await asyncio.sleep(REST_S)
            took = cpu_s(parts.managers[0].pid) - cpu
            percents.append(100 * took / (time.monotonic() - began))
        return percents
