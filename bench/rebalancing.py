"""Traffic that moves between Routers: how soon its slots are there, and what it costs.

Real processes: one etcd, a Manager, three Routers, containers of the process driver. The Routers'
own clocks measure the waits (`Timing.wait`), so that a busy client does not count.
"""

import asyncio
import os
import sys
from pathlib import Path

from figure import ROOT, Figure

sys.path.insert(0, str(ROOT))
from tests.integration.moving import Traffic, go_round
from tests.integration.parts import Parts

GOAL_MS = 100.0
GOAL_WRITES = 0.1
MOVES, MOVES_QUICK = 20, 6
LOADS = ((10, 0.05), (200, 0.25))
ROUND_CONTAINERS = 3


def measure(directory: Path, quick: bool) -> list[Figure]:
    """See the module."""
    return asyncio.run(run(directory / "parts", MOVES_QUICK if quick else MOVES))


async def run(directory: Path, moves: int) -> list[Figure]:
    """All traffic of an action goes from Router 1 to Router 3 and back."""
    figures = []
    async with Parts(directory, f"bench-{os.getpid()}") as parts:
        for concurrency, sleep_s in LOADS:
            traffic = Traffic(parts, concurrency, sleep_s)
            await traffic.prepare()
            took = [await traffic.at(router) for router in (2, 0) * (moves // 2)]
            settled = sorted(move.settled_s * 1000 for move in took)
            longest = max(move.longest_s for move in took) * 1000
            note = f"the last wait's end after a move: {settled[0]:.0f} … {settled[-1]:.0f}"
            note += f" of {moves} moves; longest wait {longest:.0f}; load {os.getloadavg()[0]:.1f}"
            name = f"rebalancing.c{concurrency}"
            figures.append(Figure(f"{name}_settled_ms", settled[-1], "ms", GOAL_MS, note))
            created = float(len(traffic.containers) - 1)
            figures.append(Figure(f"{name}_created", created, "", 0, "containers beyond the first"))
        requests, writes = await go_round(parts, ROUND_CONTAINERS)
        note = f"{writes} writes for {requests} requests with C=1, {ROUND_CONTAINERS} at a time"
        figures.append(
            Figure("rebalancing.round_writes", writes / requests, "per request", GOAL_WRITES, note)
        )
    return figures
