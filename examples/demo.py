"""The main job, end to end, with its own witness: a cluster on this machine, an action that does
real work, and a count of what the action's own code saw.

For C = 10, 1 and 200: a burst of 100 requests on the cold action, which waits at a barrier until
all of them have arrived, then a steady load over all Routers. Ends with a table, and a status other
than 0 if a promise was broken.

With `--driver docker` (after `make image`) the containers are Docker's. They share no folder for a
barrier, so each request of the burst takes longer than it takes to start them all; and there are
fewer of them: 20, for C = 10, 1 and 20.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from slotway import SlotwayError
from slotway.aio import Client

DOCUMENTS = Path(__file__).resolve().parent / "documents"
BURST = 100
DOCKER_BURST = 20
DOCKER_BURST_MS = 20_000
RATE = 800
"""Requests per second that the steady load aims at: the action holds each request for long enough
to fill its containers."""


@dataclass
class Witness:
    """What the action's own code saw, container by container, gathered from its answers."""

    highest: Counter[str] = field(default_factory=Counter)

    def saw(self, witness: dict[str, object]) -> None:
        """Takes the witness part of one answer."""
        container, most = str(witness["container"]), int(str(witness["max"]))
        self.highest[container] = max(self.highest[container], most)


@dataclass
class Run:
    """One C: its burst and its steady load."""

    concurrency: int
    burst: int = BURST
    """Requests at once on the cold action."""
    witness: Witness = field(default_factory=Witness)
    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    burst_containers: int = 0

    @property
    def action(self) -> str:
        """The action's name."""
        return f"demo/documents-{self.concurrency}"

    @property
    def expected_containers(self) -> int:
        """What the burst should initialise."""
        return math.ceil(self.burst / self.concurrency)

    @property
    def highest(self) -> int:
        """The most requests that any container's code saw at once."""
        return max(self.witness.highest.values(), default=0)

    def broken(self) -> Iterator[str]:
        """Every promise that this run broke."""
        if self.burst_containers != self.expected_containers:
            yield f"a burst of {self.burst} made {self.burst_containers} containers"
        if self.highest > self.concurrency:
            yield f"a container ran {self.highest} requests at once"
        if self.highest < self.concurrency:
            yield f"no container reached C: the most seen was {self.highest}"
        if self.errors:
            yield f"errors: {dict(self.errors)}"
        if self.wrong:
            yield f"{self.wrong} answers differ from the committed ones"


@contextlib.asynccontextmanager
async def cluster(routers: int, data_dir: Path, driver: str = "process") -> AsyncIterator[str]:
    """`slotway dev` with this many Routers; gives the address of one."""
    endpoint, log_path = data_dir / "endpoint", data_dir.parent / "dev.log"
    command = ["dev", "--routers", str(routers), "--data-dir", str(data_dir), "--driver", driver]
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "slotway.cli",
            *command,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(60):
                while not endpoint.exists():
                    if process.returncode is not None:
                        sys.exit(f"slotway dev ended:\n{log_path.read_text()}")
                    await asyncio.sleep(0.05)
            yield endpoint.read_text().strip()
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(process.wait(), 30)
            except TimeoutError:
                process.kill()
                await process.wait()


class Load:
    """Sends the documents to the action over all Routers, and checks every answer."""

    def __init__(self, clients: list[Client]):
        self.clients = clients
        self.documents = _lines(DOCUMENTS / "documents.jsonl")
        self.expected = _lines(DOCUMENTS / "answers.jsonl")

    async def one(self, run: Run, i: int, extra: dict[str, object]) -> None:
        """The i-th request."""
        document, client = i % len(self.documents), self.clients[i % len(self.clients)]
        start = time.perf_counter()
        try:
            arguments = {"document": self.documents[document], **extra}
            answer = await client.invoke(run.action, arguments, timeout=120)
        except SlotwayError as error:
            run.errors[error.reason] += 1
            return
        run.latencies_ms.append((time.perf_counter() - start) * 1e3)
        run.wrong += answer.result["summary"] != self.expected[document]
        run.witness.saw(answer.result["witness"])

    async def burst(self, run: Run, barrier: Path | None) -> None:
        """All at once; no request ends before all have arrived in the action, or could have."""
        extra: dict[str, object] = {"sleep_ms": DOCKER_BURST_MS}
        if barrier is not None:
            await asyncio.to_thread(barrier.mkdir)
            extra = {"barrier_dir": str(barrier), "barrier_count": run.burst}
        async with asyncio.TaskGroup() as group:
            for i in range(run.burst):
                group.create_task(self.one(run, i, extra))
        containers = (await self.clients[0].cluster()).containers
        recorded = sum(container.record.action == run.action for container in containers)
        run.burst_containers = max(recorded, len(run.witness.highest))

    async def steady(self, run: Run, requests: int, progress: Progress) -> None:
        """As many at once as the burst's containers hold."""
        bar = progress.add_task(f"C = {run.concurrency}: {requests} requests", total=requests)
        at_once = run.expected_containers * run.concurrency
        numbers = iter(range(requests))

        async def worker() -> None:
            for i in numbers:
                await self.one(run, i, {"sleep_ms": 1000 * at_once // RATE})
                progress.advance(bar)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def demo(requests: int, runs: list[Run], routers: int, driver: str, console: Console) -> None:
    """Goes through all runs in one cluster."""
    code = (DOCUMENTS / "action.py").read_bytes()
    scratch = Path(tempfile.mkdtemp(prefix="slotway-demo-"))
    try:
        async with contextlib.AsyncExitStack() as stack:
            console.print(f"Starting etcd, a Manager and {routers} Routers in {scratch}")
            first = await stack.enter_async_context(cluster(routers, scratch / "cluster", driver))
            client = await stack.enter_async_context(Client(first))
            addresses = [router.address for router in (await client.cluster()).routers]
            load = Load([await stack.enter_async_context(Client(a)) for a in addresses])
            progress = stack.enter_context(Progress(console=console))
            for run in runs:
                await client.put_action(run.action, code, concurrency=run.concurrency)
                bar = progress.add_task(f"C = {run.concurrency}: burst of {run.burst}", total=1)
                shared = scratch / f"barrier-{run.concurrency}"
                await load.burst(run, shared if driver == "process" else None)
                progress.advance(bar)
                await load.steady(run, requests, progress)
                await client.delete_action(run.action)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def report(runs: list[Run], console: Console) -> bool:
    """Prints the table; whether every promise was kept."""
    table = Table(title="What the action's own code saw")
    for column in ("C", "requests", "errors", "p50 ms", "p99 ms", "containers", "highest seen"):
        table.add_column(column, justify="right")
    for run in runs:
        cuts = statistics.quantiles([*run.latencies_ms, 0.0, 0.0], n=100)
        table.add_row(
            str(run.concurrency),
            str(len(run.latencies_ms)),
            str(run.errors.total() + run.wrong),
            f"{cuts[49]:.1f}",
            f"{cuts[98]:.1f}",
            f"{run.burst_containers} of {run.expected_containers}",
            f"{run.highest} of {run.concurrency}",
            style="red" if any(run.broken()) else "green",
        )
    console.print(table)
    broken = [f"C = {run.concurrency}: {promise}" for run in runs for promise in run.broken()]
    for promise in broken:
        console.print(f"[red]broken[/red] at {promise}")
    console.print("[red]A promise was broken.[/red]" if broken else "Every promise was kept.")
    return not broken


def main() -> int:
    """Parses the arguments, runs the demo, and returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, help="steady requests for each C")
    parser.add_argument("--routers", type=int, default=3)
    parser.add_argument("--concurrency", type=int, action="append", help="only this C (repeatable)")
    parser.add_argument("--driver", choices=("process", "docker"), default="process")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 100)
    docker = arguments.driver == "docker"
    burst = DOCKER_BURST if docker else BURST
    requests = arguments.requests or (500 if docker else 10_000)
    runs = [Run(c, burst) for c in arguments.concurrency or [10, 1, 20 if docker else 200]]
    asyncio.run(demo(requests, runs, arguments.routers, arguments.driver, console))
    return 0 if report(runs, console) else 1


if __name__ == "__main__":
    sys.exit(main())
