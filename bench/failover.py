"""A Manager's loss: from the fault to a Router's share of a container that was demanded after it.

Two real Manager processes with the fake driver, one etcd, and a Router that speaks the session
protocol and does nothing else. Each repetition demands an action that has no container yet, just
after the fault's system call; one CLOCK_MONOTONIC.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import statistics
import sys
from pathlib import Path

import grpc.aio
from figure import ROOT, Figure

sys.path.insert(0, str(ROOT))
from slotway.etcd import Access, Client
from slotway.etcd.server import EtcdServer
from slotway.manager.succession import YOUNG_S
from slotway.v1 import action_pb2
from slotway.v1.action_pb2_grpc import ActionServiceStub
from tests.integration.managers import Everywhere, ManagerProcess, Managers

FAULTS = {
    "handover": (signal.SIGTERM, {"p99": 100.0}),
    "killed": (signal.SIGKILL, {"p50": 50.0, "p99": 250.0}),
    "stopped": (signal.SIGSTOP, {"p99": 700.0}),
}
REPETITIONS = 30
REPETITIONS_QUICK = 5
_numbers = itertools.count(1)


async def put(leader: ManagerProcess, name: str) -> None:
    """Puts an action with C=1."""
    limits = action_pb2.Limits(concurrency=1, memory_mib=64)
    limits.timeout.FromMilliseconds(60_000)
    action = action_pb2.Action(name=name, exec=action_pb2.Exec(kind="python:3"), limits=limits)
    request = action_pb2.PutActionRequest(action=action, code=b"def main(args): return {}")
    async with grpc.aio.insecure_channel(leader.address) as channel:
        await ActionServiceStub(channel).PutAction(request, timeout=10)


async def repetition(world: Managers, fault: signal.Signals) -> float:
    """One loss; returns milliseconds."""
    leader, others = await world.led()
    number = next(_numbers)
    action = f"bench/a{number}"
    await put(leader, action)
    router = Everywhere(f"r{number}", [leader, *others])
    router.open()
    try:
        for stream in router.streams:
            if stream.manager == leader.address:
                await stream.until(lambda stream=stream: stream.term is not None)
        await router.share(action)  # the session works, and the next leader has to hear a Hello
        await asyncio.sleep(YOUNG_S + 0.2)  # a young key is left alone
        await put(leader, cold := f"bench/b{number}")
        leader.signal(fault)
        took_s = await router.share(cold)
    finally:
        await router.close()
    if fault is signal.SIGSTOP:
        leader.signal(signal.SIGCONT)
    else:
        await leader.process.wait()
        await world.start(leader.name)
    return took_s * 1000


async def run(directory: Path, repetitions: int) -> list[Figure]:
    """All faults, one after the other."""
    figures = []
    server = EtcdServer(directory / "etcd", directory / "etcd.log")
    await server.start()
    async with Client(Access((server.endpoint,))) as client:
        world = Managers(client, server.endpoint, "bench", directory)
        try:
            for name in ("one", "two"):
                await world.start(name)
            for fault, (number, goals) in FAULTS.items():
                took = sorted([await repetition(world, number) for _ in range(repetitions)])
                quantiles = {"p50": statistics.median(took), "p99": took[-1 - len(took) // 100]}
                load = os.getloadavg()[0]
                note = f"{len(took)} times, {took[0]:.0f} … {took[-1]:.0f}; load {load:.1f}"
                for quantile, value in quantiles.items():
                    metric = f"failover.{fault}_{quantile}_ms"
                    figures.append(Figure(metric, value, "ms", goals.get(quantile), note))
        finally:
            await world.stop()
            with contextlib.suppress(OSError):
                await server.stop()
    return figures


def measure(directory: Path, quick: bool) -> list[Figure]:
    """See the module."""
    return asyncio.run(run(directory, REPETITIONS_QUICK if quick else REPETITIONS))
