"""A whole cluster whose containers are Docker's."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from slotway.aio import Activation, Client
from slotway.errors import SlotwayError

pytestmark = pytest.mark.docker
WAIT_S = 60.0
WITNESS = b"""
import asyncio, os
running = most = 0
async def main(args):
    global running, most
    running += 1
    most = max(most, running)
    await asyncio.sleep(args["sleep_s"])
    running -= 1
    return {"container": os.environ["SLOTWAY_CONTAINER"], "most": most}
"""


def docker(*arguments: str) -> list[str]:
    """What the command line tool prints, line by line."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


class Dev:
    """`slotway dev` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = f"test-{secrets.token_hex(4)}"
        self.flags: list[str] = []
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> str:
        """Gives the first Router's address."""
        command = ["dev", "--routers", "2", "--driver", "docker", "--data-dir", str(self.folder)]
        command += ["--cluster", self.cluster, *self.flags]
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "slotway.cli", *command), stdout=asyncio.subprocess.PIPE
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            while line := await self.process.stdout.readline():
                if line.startswith(b"ready"):
                    break
        return (self.folder / "endpoint").read_text().strip()

    def left(self) -> list[str]:
        """The names of its containers, and of its networks."""
        named = ("--filter", f"name=slotway.{self.cluster}", "--format")
        there = docker("ps", "-a", *named, "{{.Names}}")
        return there + docker("network", "ls", *named, "{{.Name}}")

    async def stop(self) -> None:
        """As Ctrl-C does."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
        await asyncio.wait_for(self.process.communicate(), WAIT_S)


@pytest.fixture
async def dev(tmp_path: Path) -> AsyncIterator[Dev]:
    dev = Dev(tmp_path / "dev")
    yield dev
    if dev.process is not None:
        await dev.stop()


async def test_a_cluster_keeps_to_c_and_to_its_addresses(dev: Dev) -> None:
    addresses = []
    for _ in range(2):
        async with Client(await dev.start()) as client:
            await client.put_action("demo/witness", WITNESS, concurrency=3)
            answers = await asyncio.gather(
                *(client.invoke("demo/witness", {"sleep_s": 3}, timeout=WAIT_S) for _ in range(6))
            )
            assert max(answer.result["most"] for answer in answers) == 3
            containers = {str(answer.result["container"]) for answer in answers}
            records = [one.record for one in (await client.cluster()).containers]
            assert containers == {record.id for record in records}, records
            assert len(records) == 2
            addresses += [record.address for record in records]
            assert len(dev.left()) >= 3, "two containers and their network"
        await dev.stop()
        assert dev.left() == [], "it leaves no container, no tomb and no network"
    assert len(set(addresses)) == 4, "the second run goes on counting"


@pytest.fixture(scope="session")
def perl() -> Iterator[str]:
    """An image that is not ours, with a runtime that dies when two activations overlap."""
    image = f"slotway/test-perl:{os.getpid()}"
    docker("build", "-q", "-t", image, str(Path(__file__).parents[1] / "images" / "perl"))
    yield image
    docker("rmi", image)


async def test_an_image_of_others_runs_one_activation_at_a_time(dev: Dev, perl: str) -> None:
    """Under load from three Routers, on three containers that would not survive two at once."""
    dev.flags = ["--routers", "3", "--containers-max", "3"]
    async with Client(await dev.start()) as first, AsyncExitStack() as stack:
        endpoints = [router.address for router in (await first.cluster()).routers]
        clients = [await stack.enter_async_context(Client(one)) for one in endpoints]
        assert len(clients) == 3
        with pytest.raises(SlotwayError, match=r"slotway\.concurrency=true.*--concurrent"):
            await clients[0].put_action("demo/perl", image=perl, concurrency=2)
        await clients[0].put_action("demo/perl", image=perl)

        async def ask(client: Client) -> list[Activation]:
            return [
                await client.invoke("demo/perl", {"sleep_ms": number % 3}, timeout=WAIT_S)
                for number in range(25)
            ]

        # One after the other, so that requests arrive while all slots are in use.
        lists = await asyncio.gather(*(ask(client) for client in clients * 4))
        answers = [answer for answers in lists for answer in answers]
        assert len(answers) == 300
        assert {answer.result["had_code"] for answer in answers} == {False}
        assert {answer.result["name"] for answer in answers} == {"perl"}
        used = {answer.container_id for answer in answers}
        records = [one.record for one in (await clients[0].cluster()).containers]
        assert used <= {record.id for record in records}, "none has died"
        assert 1 <= len(used) <= 3
        for container in used:
            runs = [one.result["runs"] for one in answers if one.container_id == container]
            assert sorted(runs) == list(range(1, len(runs) + 1)), "it counted each once"


GREEDY = b"""
import os
def main(args):
    keep = []
    while True:
        keep.append(bytearray(os.urandom(1024)) * 1024)
"""


async def test_who_waits_is_told_that_memory_was_short(dev: Dev) -> None:
    """While the action runs, and while its code is loaded."""
    async with Client(await dev.start()) as client:
        await client.put_action("demo/greedy", GREEDY, memory_mib=64)
        with pytest.raises(SlotwayError, match="used more memory than its limit of 64 MiB") as lost:
            await client.invoke("demo/greedy", timeout=WAIT_S)
        assert lost.value.reason == "CONTAINER_LOST"
        await client.put_action("demo/greedy", GREEDY + b"main({})\n", memory_mib=64)
        with pytest.raises(SlotwayError, match="used more memory than its limit of 64 MiB") as lost:
            await client.invoke("demo/greedy", timeout=WAIT_S)
        assert lost.value.reason == "INIT_FAILED"


async def test_the_waiting_request_gets_the_reason(
    dev: Dev, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = "python:3=slotway/none:1"
    monkeypatch.setenv("SLOTWAY_MANAGER_DOCKER_IMAGES", images)
    async with Client(await dev.start()) as client:
        await client.put_action("demo/witness", WITNESS)
        with pytest.raises(
            SlotwayError, match="no image slotway/none:1: make it with `make image`"
        ):
            await client.invoke("demo/witness", {"sleep_s": 0}, timeout=WAIT_S)
