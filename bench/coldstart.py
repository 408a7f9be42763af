"""Cold starts with the Docker driver, against the engine's own create, start and `/init` of the
very same container, by turns.

A cold start is what a caller waits for the first answer of a new action: Router, Manager, two
commits, the engine, `/init`, the grant, the request itself. With a stem cell there is no engine in
it: then it is compared with the bare `/init`.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import figure

from slotway.aio import Client
from slotway.drivers.base import ContainerId, ContainerSpec, DriverError, Label
from slotway.drivers.docker import DockerOptions
from slotway.drivers.docker.container import hardened
from slotway.drivers.docker.engine import Engine
from slotway.drivers.docker.network import Network, Subnet
from slotway.drivers.init import post_init
from slotway.v1.ledger_pb2 import CONTAINER_STATE_PREWARMED

CODE = b"def main(args):\n    return {}\n"
VALUE = {"name": "hello", "main": "main", "code": CODE.decode(), "binary": False, "env": {}}
GOAL = 1.1
PREWARMED_GOAL_MS = 15.0
READY_S = 60.0


def measure(directory: Path, quick: bool) -> list[figure.Figure]:
    """The area's figures."""
    rounds = 5 if quick else 20
    try:
        bare, inits, cold = asyncio.run(_measure(directory, rounds))
        prewarmed = asyncio.run(_prewarmed(directory, rounds))
    except DriverError as error:
        return [figure.Figure("coldstart.over_engine", None, "", GOAL, str(error))]
    ratio = statistics.median(cold) / statistics.median(bare)
    over = statistics.median(prewarmed) - statistics.median(inits)
    note = "medians of the two below"
    return [
        figure.Figure("coldstart.over_engine", ratio, "", GOAL, note),
        figure.Figure("coldstart.docker_ms", statistics.median(cold), "ms", note=_spread(cold)),
        figure.Figure("coldstart.engine_ms", statistics.median(bare), "ms", note=_spread(bare)),
        figure.Figure("coldstart.prewarmed_over_init_ms", over, "ms", PREWARMED_GOAL_MS, note),
        figure.Figure(
            "coldstart.prewarmed_ms", statistics.median(prewarmed), "ms", note=_spread(prewarmed)
        ),
        figure.Figure("coldstart.init_ms", statistics.median(inits), "ms", note=_spread(inits)),
    ]


def _spread(values: list[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}, {len(values)} times"


async def _measure(directory: Path, rounds: int) -> tuple[list[float], list[float], list[float]]:
    bare, inits, cold = [], [], []
    async with _engine() as engine, _cluster(directory) as endpoint, Client(endpoint) as client:
        name = f"bench-{os.getpid()}"
        subnet = Subnet("198.19.240.0/20")
        network = Network(engine, name, subnet)
        place = await network.ensure("bench")
        try:
            for number in range(1, rounds + 1):
                whole, init = await _by_hand(engine, place, subnet, number)
                bare.append(whole)
                inits.append(init)
                cold.append(await _cold(client, f"bench/cold-{number}"))
                # The engine is to have nothing else to do in the next turn.
                while (await client.cluster()).containers:  # noqa: ASYNC110 - another process's
                    await asyncio.sleep(0.1)
        finally:
            await network.remove()
    return bare, inits, cold


async def _prewarmed(directory: Path, rounds: int) -> list[float]:
    """Milliseconds; each start finds a stem cell, and nothing else going on."""
    cold = []
    flags = ["--prewarm", "python:3=1"]
    async with _cluster(directory, *flags) as endpoint, Client(endpoint) as client:
        for number in range(rounds):
            while True:
                states = [one.record.state for one in (await client.cluster()).containers]
                if states == [CONTAINER_STATE_PREWARMED]:
                    break
                await asyncio.sleep(0.1)
            cold.append(await _cold(client, f"bench/prewarmed-{number}"))
    return cold


async def _cold(client: Client, action: str) -> float:
    """Milliseconds to the first answer of a new action, which is deleted after it."""
    await client.put_action(action, CODE)
    begun = time.perf_counter()
    await client.invoke(action, {}, timeout=60)
    taken = (time.perf_counter() - begun) * 1e3
    await client.delete_action(action)
    return taken


async def _by_hand(
    engine: Engine, network: str, subnet: Subnet, number: int
) -> tuple[float, float]:
    """What the engine and the runtime take, with nothing of ours between, and what `/init` takes of
    it; milliseconds."""
    address = subnet.address(number)
    label = Label("bench", 1, ContainerId(f"b{number}"), "1.1")
    spec = ContainerSpec(label, "python:3", 1, 256, address, "bench")
    body = hardened(spec, "slotway/python:3", network, 1.0)
    host, _, port = address.rpartition(":")
    begun = time.perf_counter()
    made = await engine.call("POST", "/containers/create", body, timeout_s=30)
    path = f"/containers/{made['Id']}"
    try:
        await engine.call("POST", f"{path}/start", timeout_s=30)
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                break
            await asyncio.sleep(0.002)
        initialised = time.perf_counter()
        await post_init(address, VALUE, timedelta(seconds=30))
        ended = time.perf_counter()
        return (ended - begun) * 1e3, (ended - initialised) * 1e3
    finally:
        await engine.call("DELETE", path, force="true", v="true", timeout_s=30)


@contextlib.asynccontextmanager
async def _engine():
    engine = Engine(DockerOptions().socket)
    try:
        await engine.open()
        yield engine
    finally:
        await engine.close()


@contextlib.asynccontextmanager
async def _cluster(directory: Path, *flags: str):
    """`slotway dev` with one Router; gives its address."""
    data_dir = directory / f"cluster{len(flags)}"
    command = ["dev", "--routers", "1", "--driver", "docker", "--data-dir", str(data_dir)]
    command += flags
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "slotway.cli", *command), stdout=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(READY_S):
            while not (data_dir / "endpoint").exists():
                if process.returncode is not None:
                    raise DriverError(f"slotway dev ended with status {process.returncode}")
                await asyncio.sleep(0.05)
        yield (data_dir / "endpoint").read_text().strip()
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 60)
