"""Bursts of N requests on a cold action, over three Routers: containers made beyond ceil(N/C).

No request of a burst ends before all of them run: the action waits at a barrier outside of Slotway
(the fake driver has one of its own).
"""

import asyncio
import math
import os
import sys
import tempfile
from pathlib import Path

from figure import ROOT, Figure

sys.path.insert(0, str(ROOT))
from slotway.errors import SlotwayError
from tests.integration.gathering import CODE, Gathering, listen
from tests.integration.parts import Parts

CAPACITIES = (1, 10, 200)
BURSTS = {"fake": (1, 10, 100, 1000), "process": (1, 10, 100, 200), "docker": (1, 10, 40)}
BURST_S = 120.0


def measure(directory: Path, quick: bool) -> list[Figure]:
    """The containers that were too many or too few, in sum, per driver."""
    figures = []
    for driver, bursts in BURSTS.items():
        name = f"burst.{driver}_excess"
        with tempfile.TemporaryDirectory(prefix="slotway-", dir=directory) as folder:
            try:
                off = asyncio.run(run(Path(folder), driver, bursts[:-1] if quick else bursts))
            except (AssertionError, SlotwayError, TimeoutError) as error:
                if driver != "docker":
                    raise
                why = str(error).strip().splitlines()[-1:] or ["no engine"]
                figures.append(Figure(name, None, "", 0, f"not measured: {why[0][:200]}"))
                continue
        wrong = {what: made for what, made in off.items() if made}
        note = f"containers beyond ceil(N/C), {len(off)} bursts with N ≤ {bursts[-1]}"
        note += f": {wrong}" if wrong else ""
        figures.append(Figure(name, float(sum(map(abs, off.values()))), "containers", 0, note))
    return figures


async def run(directory: Path, driver: str, bursts: tuple[int, ...]) -> dict[str, int]:
    """Each burst on an action of its own; containers made beyond those expected."""
    cluster = f"bench-{os.getpid()}"
    flags = ["--containers-max", str(2 * max(bursts) + 10)]
    off = {}
    async with Parts(directory / "parts", cluster, driver=driver, manager_flags=flags) as parts:
        for concurrency in CAPACITIES:
            for burst in bursts:
                name = f"burst/c{concurrency}-n{burst}"
                await parts.clients[0].put_action(name, CODE, concurrency=concurrency)
                made = await one(parts, name, burst)
                off[f"C={concurrency}, N={burst}"] = made - math.ceil(burst / concurrency)
                await parts.clients[0].delete_action(name)
                while (await parts.show()).containers:  # noqa: ASYNC110 - another process's
                    await asyncio.sleep(0.1)
    return off


async def one(parts: Parts, name: str, burst: int) -> int:
    """How many containers the burst has made."""
    with listen(parts.driver, parts.cluster) as listener:
        async with Gathering(listener, burst) as barrier, asyncio.timeout(BURST_S):
            arguments = {"gather": burst if parts.driver == "fake" else barrier.address}
            calls = [
                parts.clients[i % len(parts.clients)].invoke(name, arguments, timeout=BURST_S)
                for i in range(burst)
            ]
            ran_in = {answer.container_id for answer in await asyncio.gather(*calls)}
    recorded = {one.record.id for one in (await parts.show()).containers}
    return len(ran_in | recorded)
