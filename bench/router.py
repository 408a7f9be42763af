"""A Router at rest: a real one, with a Manager and etcd, and containers of the fake driver."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from figure import Figure
from process import resident_mb

from slotway.aio import Client

ACTIONS = 1_000
SLOTS = 10
GOAL_MB = 150
AT_ONCE = 32
START_S = 60
FILL_S = 180
STOP_S = 30
CODE = b"def main(args): return args\n"
#: What a Router holds while it idles is to be measured, not how soon it gives it back.
SETTINGS = "[router]\ngive_back = '1h'\n"


async def fill(endpoint: str) -> int:
    """Puts the actions and runs each once; how many slots are held then."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def use(client: Client, name: str) -> None:
        async with turns:
            action = await client.put_action(name, CODE, concurrency=SLOTS)
            await client.invoke(action.name, {}, timeout=30)

    async with Client(endpoint) as client, asyncio.timeout(FILL_S):
        async with asyncio.TaskGroup() as tasks:
            for number in range(ACTIONS):
                tasks.create_task(use(client, f"bench/action-{number}"))
        cluster = await client.cluster()
        return sum(sum(status.record.shares.values()) for status in cluster.containers)


def children(pid: int) -> list[tuple[int, str]]:
    """The process's children and their command lines."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
        line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        found.append((int(child), line))
    return found


def read_endpoint(dev: subprocess.Popen[str]) -> str:
    """The Router's address, from what `slotway dev` prints until it is ready."""
    late = threading.Timer(START_S, dev.kill)
    late.start()
    endpoint = ""
    assert dev.stdout is not None
    for line in dev.stdout:
        if match := re.match(r"router-1 +(\S+)", line):
            endpoint = match[1]
        if line.startswith("ready"):
            late.cancel()
            return endpoint
    raise RuntimeError("the cluster did not start")


def measure(directory: Path, quick: bool) -> list[Figure]:
    """The memory of a Router's whole process with the shares of 1,000 actions × 10 slots."""
    del quick
    config = directory / "slotway.toml"
    config.write_text(SETTINGS, encoding="utf-8")
    command = [sys.executable, "-m", "slotway.cli", "dev", "--routers", "1", "--driver", "fake"]
    command += ["--data-dir", str(directory), "--config", str(config), "--keep-warm", "1h"]
    command += ["--containers-max", str(ACTIONS + 100)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as dev:
        try:
            endpoint = read_endpoint(dev)
            slots = asyncio.run(fill(endpoint))
            (router,) = (pid for pid, line in children(dev.pid) if "slotway.cli router" in line)
            memory = resident_mb(router)
        finally:
            dev.send_signal(signal.SIGINT)
            dev.wait(STOP_S)
    note = f"the whole process, with {slots:,} slots of {ACTIONS:,} actions"
    return [Figure("router.idle_memory_mb", memory, "MB", GOAL_MB, note)]
