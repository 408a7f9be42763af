"""100,000 requests with clients that hang up, actions that raise, exit and overrun, and containers
that are killed: the action's own count is never above C, and afterwards every slot is back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from slotway.aio import ApplicationError, CallError, Client
from slotway.v1.ledger_pb2 import CONTAINER_STATE_READY

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))
from demo import cluster  # noqa: E402

REQUESTS = int(os.environ.get("STORM_REQUESTS", "100000"))
SEED = int(os.environ.get("STORM_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
AT_ONCE = 120
TIMEOUT_S = 1.0
QUIET_S = 2.0
MOODS = {"": 0.985, "raise": 0.01, "exit": 0.001, "overrun": 0.001, "hang up": 0.003}
EXPECTED = {
    "ok",
    "application error",
    "ACTION_TIMEOUT",
    "CONTAINER_LOST",
    "DEADLINE",
    "DEADLINE_EXCEEDED",
}


class Storm:
    """The load on one action, and its witness."""

    def __init__(self, concurrency: int, directory: Path, clients: list[Client]) -> None:
        self.concurrency, self.directory, self.clients = concurrency, directory, clients
        self.name = f"drill/storm-{concurrency}"
        self.outcomes: Counter[str] = Counter()
        directory.mkdir()

    async def put(self) -> None:
        code = (Path(__file__).parent / "storm_action.py").read_bytes()
        await self.clients[0].put_action(
            self.name, code, concurrency=self.concurrency, timeout=TIMEOUT_S
        )

    async def one(self, rng: random.Random) -> None:
        mood = rng.choices(list(MOODS), list(MOODS.values()))[0]
        arguments = {
            "witness_dir": str(self.directory),
            "mood": mood,
            "sleep_s": rng.choice([0, 0, 0.002, 0.01]),
            "overrun_s": 1.5,
        }
        if mood == "hang up":
            arguments["sleep_s"] = 0.2
        timeout = rng.uniform(0.001, 0.1) if mood == "hang up" else 30.0
        try:
            await rng.choice(self.clients).invoke(self.name, arguments, timeout=timeout)
        except ApplicationError:
            self.outcomes["application error"] += 1
        except CallError as error:
            self.outcomes[error.reason or error.code.name] += 1
        else:
            self.outcomes["ok"] += 1

    async def containers(self) -> dict[str, int]:
        """The action's containers that take requests, and their C."""
        listed = [c.record for c in (await self.clients[0].cluster()).containers]
        ready = [r for r in listed if r.action == self.name and r.state == CONTAINER_STATE_READY]
        return {record.id: record.capacity for record in ready}

    async def missing(self) -> dict[str, str]:
        """Containers that take requests and have slots which are neither free nor idle."""
        cluster = await self.clients[0].cluster()
        idle: Counter[str] = Counter()
        for router in cluster.routers:
            for share in (share for demand in router.demand for share in demand.idle):
                idle[share.container_id] += share.idle
        found = {}
        for record in (container.record for container in cluster.containers):
            free = record.capacity - sum(record.shares.values())
            if record.action == self.name and free + idle[record.id] < record.capacity:
                found[record.id] = f"{record}: {idle[record.id]} idle"
        return found

    def highest(self) -> int:
        """The most that any container's code saw at once."""
        texts = [path.read_text() for path in self.directory.iterdir()]
        return max(int(seen) for text in texts for seen in text.split())

    async def wake(self) -> None:
        """One request, so that there is a container at all."""
        await self.clients[0].invoke(self.name, {"witness_dir": str(self.directory)}, timeout=30)

    async def full_house(self, barrier: Path) -> set[str]:
        """As many requests as the whole capacity run at once. Returns the containers made for them.

        None should be. A Router that the barrier's own load keeps from reporting for a second is
        taken for silent, though, and then what idles there is rightly not counted on.
        """
        before = await self.containers()
        count = sum(before.values())
        arguments = {
            "witness_dir": str(self.directory),
            "mood": "barrier",
            "barrier": str(barrier),
            "count": count,
        }
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for i in range(count):
                group.create_task(
                    self.clients[i % len(self.clients)].invoke(self.name, arguments, timeout=20)
                )
        assert barrier.stat().st_size == count
        return set(await self.containers()) - set(before)


def runtimes(data_dir: Path) -> list[int]:
    """The containers' runtimes: the children of the supervisors that their lock files name."""
    found: list[int] = []
    for path in (data_dir / "manager" / "containers").glob("*.lock"):
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            supervisor = json.loads(path.read_text().splitlines()[0])["pid"]
            children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text()
            found.extend(int(child) for child in children.split())
    return found


@pytest.mark.drill
async def test_storm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLOTWAY_MANAGER_OVERRUN_GRACE", "1s")
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    async with cluster(3, tmp_path / "cluster") as first, Client(first) as client:
        addresses = [router.address for router in (await client.cluster()).routers]
        clients = [Client(address) for address in addresses]
        storms = [Storm(c, tmp_path / f"witness-{c}", clients) for c in (1, 10, 50)]
        for storm in storms:
            await storm.put()
        numbers = iter(range(REQUESTS))

        async def worker() -> None:
            for _ in numbers:
                await rng.choice(storms).one(rng)

        killed = 0
        async with asyncio.TaskGroup() as group:
            load = [group.create_task(worker()) for _ in range(AT_ONCE)]
            while not all(task.done() for task in load):
                await asyncio.wait(load, timeout=0.5)
                if victims := runtimes(tmp_path / "cluster"):
                    with contextlib.suppress(ProcessLookupError):  # it has exited by itself
                        os.kill(rng.choice(victims), signal.SIGKILL)
                        killed += 1
        print(f"containers killed: {killed}")
        for _ in range(2):
            await asyncio.sleep(QUIET_S)  # the promise is about this time
            await asyncio.gather(*(storm.wake() for storm in storms))
        await asyncio.sleep(QUIET_S)
        for storm in storms:
            containers = len(list(storm.directory.iterdir()))
            print(storm.name, dict(storm.outcomes), "containers", containers)
            assert storm.outcomes["ok"] > 0.9 * storm.outcomes.total()
            assert storm.outcomes.keys() <= EXPECTED
            assert not await storm.missing()
            if made := await storm.full_house(tmp_path / f"barrier-{storm.concurrency}"):
                print(f"made for the full house: {made}; once more")
                await asyncio.sleep(QUIET_S)
                assert not await storm.full_house(tmp_path / f"again-{storm.concurrency}")
            assert storm.highest() == storm.concurrency
        assert killed >= 10
        for client in clients:
            await client.close()
