"""The Docker engine of this machine hangs, and is started anew, under a cluster that serves:
nothing is lost but what ran in containers that ended. Run alone, as root, with
TEST_DOCKER_ENGINE=1: whoever else uses the engine notices."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from slotway.aio import CallError, Client
from tests.integration.test_docker import WAIT_S, WITNESS, Dev, dev, docker

__all__ = ["dev"]
pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(
        os.environ.get("TEST_DOCKER_ENGINE") != "1",
        reason="stops this machine's Docker engine: TEST_DOCKER_ENGINE=1",
    ),
]
NOW = {"sleep_s": 0}


def engine_pid() -> int:
    return int(Path("/var/run/docker.pid").read_text())


@pytest.fixture
def hang() -> Iterator[None]:
    """Whatever happens, the engine goes on in the end."""
    yield
    os.kill(engine_pid(), signal.SIGCONT)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def restart() -> None:
    """The engine, as it was started, and without its containers."""
    pid = engine_pid()
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    niceness = os.getpriority(os.PRIO_PROCESS, pid)
    os.kill(pid, signal.SIGTERM)
    until(lambda: not os.path.exists(f"/proc/{pid}/exe"))
    # As important as it was, whatever this test is.
    command = ["nice", "-n", str(niceness - os.getpriority(os.PRIO_PROCESS, 0)), *command]
    quiet = subprocess.DEVNULL
    subprocess.run(["setsid", "--fork", *command], stdin=quiet, stdout=quiet, stderr=quiet)
    until(lambda: subprocess.run(["docker", "info"], capture_output=True).returncode == 0)


@pytest.fixture
async def client(dev: Dev) -> AsyncIterator[Client]:
    dev.flags = ["--containers-max", "6"]
    async with Client(await dev.start()) as client:
        yield client


async def containers(client: Client) -> set[str]:
    return {one.record.id for one in (await client.cluster()).containers}


async def test_an_engine_that_hangs_loses_nothing(dev: Dev, client: Client, hang: None) -> None:
    await client.put_action("demo/warm", WITNESS)
    first = await client.invoke("demo/warm", NOW, timeout=WAIT_S)
    name = next(name for name in dev.left() if name.endswith(first.container_id))
    [process] = docker("inspect", "-f", "{{.State.Pid}}", name)
    os.kill(engine_pid(), signal.SIGSTOP)
    for _ in range(20):
        warm = await client.invoke("demo/warm", NOW, timeout=5)
        assert warm.container_id == first.container_id
    await client.put_action("demo/cold", WITNESS)
    cold = asyncio.create_task(client.invoke("demo/cold", NOW, timeout=WAIT_S))
    with pytest.raises(CallError, match="the engine has to say") as refused:
        await client.put_action("demo/other", WITNESS, concurrency=2)
    assert refused.value.reason == "CREATE_FAILED"
    # A container ends, and the engine does not notice yet.
    os.kill(int(process), signal.SIGKILL)
    assert not cold.done()
    os.kill(engine_pid(), signal.SIGCONT)
    assert (await cold).container_id != first.container_id
    again = await client.invoke("demo/warm", NOW, timeout=WAIT_S)
    assert again.container_id != first.container_id
    assert first.container_id not in await containers(client)


async def test_an_engine_that_is_started_anew_is_reconciled(dev: Dev, client: Client) -> None:
    """Without live-restore all its containers end."""
    await client.put_action("demo/warm", WITNESS, concurrency=3)
    before = {(await client.invoke("demo/warm", NOW, timeout=WAIT_S)).container_id}
    running = asyncio.create_task(client.invoke("demo/warm", {"sleep_s": 50}, timeout=WAIT_S))
    await asyncio.to_thread(restart)
    with pytest.raises(CallError) as lost:
        await running
    assert lost.value.reason == "CONTAINER_LOST"
    async with asyncio.timeout(WAIT_S):
        while await containers(client) & before:
            await asyncio.sleep(0.1)
    # All slots are there: as many requests as two containers take run at once.
    calls = (client.invoke("demo/warm", {"sleep_s": 3}, timeout=WAIT_S) for _ in range(6))
    answers = await asyncio.gather(*calls)
    assert max(answer.result["most"] for answer in answers) == 3
    used = {answer.container_id for answer in answers}
    assert used == await containers(client)
    running_now = docker("ps", "--filter", f"name=slotway.{dev.cluster}", "--format", "{{.Names}}")
    assert {name.rpartition(".")[2] for name in running_now} == used
