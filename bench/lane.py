"""Asynchronous invocations through one Router: accepted, drained, and what they cost others.

Real processes: etcd, a Manager, a Router with its store, containers of the process driver. Submits
are h2load's, 64 at a time. Blocking requests come by a Poisson plan at half of what one container
can take, and their latency counts from the moment that the plan names.
"""

import asyncio
import os
import random
import struct
import sys
import time
from pathlib import Path

from figure import ROOT, Figure
from load import GRPC, Load, generate

sys.path.insert(0, str(ROOT))
from slotway.activations import Store
from slotway.aio import Client
from slotway.v1.router_pb2 import SubmitRequest
from tests.contract.postgres import NoPostgresError, PostgresServer
from tests.integration.parts import Parts

CODE = b"""
import asyncio
async def main(args):
    if "sleep" in args: await asyncio.sleep(args["sleep"])
    return {}
"""
SUBMIT = "/slotway.v1.RouterService/Submit"
CALLERS = Load(4, 16)
GOAL_SUBMIT_US = {"sqlite": 1e6 / 5_000, "postgresql": 1e6 / 2_000}
GOAL_P99_MS = 25.0
GOAL_DRAIN_US = 1e6 / 2_000
GOAL_BLOCKING = 1.2
SUBMITS, SUBMITS_QUICK = 50_000, 5_000
QUEUED, QUEUED_QUICK = 50_000, 10_000
PLAN_S, PLAN_S_QUICK = 20.0, 5.0
SLOTS, RUN_S = 8, 0.02
EMPTY_SLOTS = 32


def measure(directory: Path, quick: bool) -> list[Figure]:
    """See the module."""
    for name in ("s", "p"):
        (directory / name).mkdir()
    figures = asyncio.run(run("sqlite", f"sqlite:///{directory / 'a.db'}", directory / "s", quick))
    try:
        with PostgresServer() as server:
            figures += asyncio.run(run("postgresql", server.url(), directory / "p", quick))
    except NoPostgresError as error:
        name, goal = "lane.postgresql_submit_us", GOAL_SUBMIT_US["postgresql"]
        figures.append(Figure(name, None, "µs", goal, f"not measured: {error}"))
    return figures


async def run(kind: str, url: str, folder: Path, quick: bool) -> list[Figure]:
    """All of one kind of store."""
    flags = ["--store", url]
    async with Parts(folder / "parts", f"b{os.getpid()}", routers=1, router_flags=flags) as parts:
        client, store = parts.clients[0], Store(url)
        one = {"concurrency": 1, "containers_max": 1}
        await client.put_action("a/slow", CODE, **one)
        await client.put_action("a/empty", CODE, concurrency=EMPTY_SLOTS, containers_max=1)
        await client.put_action("b/work", CODE, concurrency=SLOTS, containers_max=1)
        work = Work(parts.addresses[0], folder, client, store)
        try:
            figures = await work.submits(kind, SUBMITS_QUICK if quick else SUBMITS)
            figures += await work.drain(kind, SUBMITS_QUICK if quick else SUBMITS)
            queued = QUEUED_QUICK if quick else QUEUED
            figures += await work.blocking(kind, queued, PLAN_S_QUICK if quick else PLAN_S)
        finally:
            store.close()
    return figures


class Work:
    """What is measured on one cluster."""

    def __init__(self, address: str, folder: Path, client: Client, store: Store) -> None:
        self.url, self.folder = f"http://{address}{SUBMIT}", folder
        self.client, self.store = client, store

    async def submit(self, action: str, payload: bytes, count: int) -> tuple[float, list[float]]:
        """So many; how many a second, and the sorted latencies in ms."""
        message = SubmitRequest(action=action, payload=payload).SerializeToString()
        body, log = self.folder / "body", self.folder / "log"
        body.write_bytes(struct.pack(">BI", 0, len(message)) + message)
        log.unlink(missing_ok=True)
        options = (f"--log-file={log}", *GRPC)
        rate = await asyncio.to_thread(generate, self.url, body, CALLERS, count, *options)
        lines = log.read_text(encoding="ascii").splitlines()
        return rate, sorted(int(line.split("\t")[2]) / 1000 for line in lines)

    async def submits(self, kind: str, count: int) -> list[Figure]:
        """Into a queue that hardly moves: its action takes a minute."""
        payload = b'{"sleep": 60, "text": "0123456789012345678901234567890123456789"}'
        await self.submit("a/slow", payload, count // 10)
        rate, took_ms = await self.submit("a/slow", payload, count)
        note = f"{rate:,.0f}/s by 64 callers, {count:,} in all; load {os.getloadavg()[0]:.1f}"
        p99 = took_ms[-1 - len(took_ms) // 100]
        spread = f"median {took_ms[len(took_ms) // 2]:.1f}, most {took_ms[-1]:.1f}"
        return [
            Figure(f"lane.{kind}_submit_us", 1e6 / rate, "µs", GOAL_SUBMIT_US[kind], note),
            Figure(f"lane.{kind}_submit_p99_ms", p99, "ms", GOAL_P99_MS, spread),
        ]

    async def drain(self, kind: str, count: int) -> list[Figure]:
        """From the first submit to the last claim, for an empty action."""
        await self.client.invoke("a/empty")
        began = time.monotonic()
        rate, _ = await self.submit("a/empty", b"{}", count)
        await self.until_claimed("a/empty")
        took_s = time.monotonic() - began
        note = f"{count / took_s:,.0f}/s, while accepted at {rate:,.0f}/s; C={EMPTY_SLOTS}"
        return [Figure(f"lane.{kind}_drain_us", took_s / count * 1e6, "µs", GOAL_DRAIN_US, note)]

    async def blocking(self, kind: str, queued: int, seconds: float) -> list[Figure]:
        """The blocking requests' p99, with a queue and without one."""
        await self.client.invoke("b/work")
        await self.p99_ms(seconds / 4)
        idle_ms = await self.p99_ms(seconds)
        await self.submit("b/work", b'{"sleep": %g}' % RUN_S, queued)
        before, began = self.left("b/work"), time.monotonic()
        busy_ms = await self.p99_ms(seconds)
        rate = (before - self.left("b/work")) / (time.monotonic() - began)
        run_ms = RUN_S * 1000
        note = f"p99 {busy_ms:.1f} ms with {before:,} queued, {idle_ms:.1f} with none"
        note += f", less a run of {run_ms:g}"
        note += f"; {rate:.0f} async/s meanwhile; load {os.getloadavg()[0]:.1f}"
        ratio = (busy_ms - run_ms) / idle_ms
        return [Figure(f"lane.{kind}_blocking_p99_ratio", ratio, "", GOAL_BLOCKING, note)]

    async def p99_ms(self, seconds: float) -> float:
        """Of a Poisson plan at half of the capacity."""
        draw, at, plan = random.Random(1), 0.0, []
        while (at := at + draw.expovariate(SLOTS / RUN_S / 2)) < seconds:
            plan.append(at)
        start, took = time.perf_counter() + 0.1, []

        async def one(at: float) -> None:
            await asyncio.sleep(start + at - time.perf_counter())
            await self.client.invoke("b/work", {"sleep": RUN_S}, timeout=60)
            took.append(time.perf_counter() - start - at)

        async with asyncio.TaskGroup() as tasks:
            for at in plan:
                tasks.create_task(one(at))
        return sorted(took)[-1 - len(took) // 100] * 1000

    def left(self, action: str) -> int:
        """How many wait."""
        waiting = self.store.waiting(time.time_ns() // 1_000_000, 1_000_000)
        return sum(one.count for one in waiting if one.action == action)

    async def until_claimed(self, action: str) -> None:
        """Waits until none is left; the store is the Router's."""
        async with asyncio.timeout(120):
            while any(one.action == action for one in self.store.waiting(2**60, 1)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
