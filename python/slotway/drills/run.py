"""Carries one drill out: steady load, the fault, what each part of the cluster did after it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from slotway.aio import CallError, Client
from slotway.drills.drill import FOREIGN, Context, Drill
from slotway.drills.observer import Observer
from slotway.drills.steps import DrillError, Shell, Target
from slotway.etcd import Access, EtcdError
from slotway.etcd import Client as EtcdClient
from slotway.load import Arrivals, Generator, Shape, summary
from slotway.members import managers_now
from slotway.records import decode
from slotway.v1.ledger_pb2 import LeaderRecord

CODE = b"""import asyncio

running = 0


async def main(args):
    global running
    running += 1
    seen = running
    await asyncio.sleep(0.005)
    running -= 1
    return {"seen": seen}
"""
"""Tells how many requests ran when this one began: a witness that no counter of ours is part of."""
WARM = {"drill/warm": 10, "drill/single": 1}
"""C of the actions under load."""
COLD, SHARED = "drill/cold", "drill/shared"
BEFORE_S, AFTER_S = 2.5, 2.0
"""Load without any fault. A leader key that is younger than 2 s is left alone, so it gets older."""
PATIENCE_S = 60.0
LOAD_S_MAX = 900.0
RETRY_S = 0.01


@dataclass(slots=True)
class Result:
    """What was seen; times in seconds since the fault, None: not seen, or not asked."""

    ended_s: float | None = None
    """When a fault that lasts was ended."""
    key_owned_s: float | None = None
    told_s: float | None = None
    share_s: float | None = None
    cold_s: float | None = None
    late: bool = False
    """Something did not come in time."""
    load: dict[str, Any] | None = None

    def faults(self) -> list[str]:
        """What should not have been."""
        found = [f"not everything came within {PATIENCE_S:.0f} s"] if self.late else []
        for action in (self.load or {}).get("actions", []):
            name, capacity = action["action"], WARM[action["action"]]
            if action["seen_max"] > capacity:
                found.append(f"{name}: {action['seen_max']} requests at once, of C = {capacity}")
            for why, count in action["failed"].items():
                found.append(f"{name}: {count} requests failed: {why}")
        return found


async def run(
    drill: Drill, target: Target, *, rate: float, seconds: float, say: Callable[[str], None]
) -> Result:
    """One drill at `rate` warm requests per second and action; DrillError if it cannot be done."""
    shell, result = Shell(target, say), Result()
    async with (
        EtcdClient(Access(target.etcd)) as etcd,
        Client(target.routers[0]) as client,
        _actions(client),
    ):
        leader, revision = await _leader(etcd, target)
        async with Observer(await managers_now(etcd, target.keys)) as observer:
            async with asyncio.timeout(PATIENCE_S):
                await observer.until_term((0, 0))
            before = observer.term
            say(f"{leader.id} at {leader.address} leads, term {before[0]}.{before[1]}")
            generator = _load(target, rate)
            generator.start()
            try:
                await _unless_broken(generator, BEFORE_S)
                tasks = _Tasks(client, etcd, observer, target, revision)
                try:
                    await _measure(drill, Context(shell, leader.id), tasks, seconds, result)
                except TimeoutError:
                    result.late = True
                finally:
                    await tasks.stop()
                await _unless_broken(generator, AFTER_S)
            finally:
                generator.stop()
                result.load = summary(await asyncio.to_thread(generator.join))
    return result


class _Tasks:
    """What is waited for at once, in tasks of their own."""

    def __init__(
        self, client: Client, etcd: EtcdClient, observer: Observer, target: Target, revision: int
    ) -> None:
        self.observer, self.before = observer, observer.term
        self._client = client
        self.owned = asyncio.create_task(_owned(etcd, target, revision))
        self.cold: asyncio.Task[int] | None = None

    def ask(self) -> None:
        """Asks for two cold actions: as a Router for slots, as a client for an answer."""
        self.observer.want(SHARED)
        self.cold = asyncio.create_task(_cold(self._client))

    async def stop(self) -> None:
        """Gives up what has not come."""
        tasks = [task for task in (self.owned, self.cold) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _measure(
    drill: Drill, context: Context, tasks: _Tasks, seconds: float, result: Result
) -> None:
    """The fault, and what followed it; TimeoutError if something did not come."""
    try:
        await drill.fault(context)
        began = context.shell.at_ns

        def since(at_ns: int) -> float:
            return (at_ns - began) / 1e9

        tasks.ask()
        if drill.end is not None:
            await asyncio.sleep(seconds)
            await drill.end(context)
            result.ended_s = since(context.shell.at_ns)
        assert tasks.cold is not None
        async with asyncio.timeout(PATIENCE_S):
            if drill.new_leader:
                result.key_owned_s = since(await tasks.owned)
                result.told_s = since(await tasks.observer.until_term(tasks.before))
            result.share_s = since(await tasks.observer.until_share(SHARED))
            result.cold_s = since(await tasks.cold)
    finally:
        if drill.after is not None:
            await drill.after(context)


def _load(target: Target, rate: float) -> Generator:
    return Generator(
        target.routers,
        [(name, b"{}", 1.0) for name in WARM],
        Arrivals(rate * len(WARM), LOAD_S_MAX, Shape.POISSON),
        bucket_s=0.01,
    )


async def _unless_broken(generator: Generator, seconds: float) -> None:
    """Waits; an early end of the load means that no Router was there."""
    if await asyncio.to_thread(generator.wait, seconds):
        try:
            generator.join()
        except ConnectionError as error:
            raise DrillError(str(error)) from error


async def _cold(client: Client) -> int:
    await client.invoke(COLD, {}, timeout=PATIENCE_S)
    return time.monotonic_ns()


async def _leader(etcd: EtcdClient, target: Target) -> tuple[LeaderRecord, int]:
    """Who leads, and the key's revision."""
    item, _ = await etcd.get(target.keys.leader)
    if item is None:
        raise DrillError(f"nobody leads the cluster {target.cluster!r} in {', '.join(target.etcd)}")
    return decode(LeaderRecord, item.key, item.value), item.mod_revision


async def _owned(etcd: EtcdClient, target: Target, revision: int) -> int:
    """Waits until a Manager puts the leader key after this revision; when that was seen."""
    while True:
        with contextlib.suppress(EtcdError):
            async with etcd.watch(target.keys.leader, revision + 1, prefix=False) as watch:
                async for batch in watch:
                    now = time.monotonic_ns()
                    for event in batch.events:
                        revision = max(revision, event.item.mod_revision)
                        if event.deleted:
                            continue
                        record = decode(LeaderRecord, event.item.key, event.item.value)
                        if record.incarnation != FOREIGN["incarnation"]:
                            return now
        await asyncio.sleep(RETRY_S)


@contextlib.asynccontextmanager
async def _actions(client: Client) -> AsyncIterator[None]:
    """The drill's actions, the warm ones warm; gone at the end."""
    names = [*WARM, COLD, SHARED]
    try:
        for name in names:
            await client.put_action(name, CODE, concurrency=WARM.get(name, 1))
        calls: list[Awaitable[object]] = [
            client.invoke(name, {}, timeout=PATIENCE_S)
            for name, capacity in WARM.items()
            for _ in range(max(2, capacity))
        ]
        await asyncio.gather(*calls)
        yield
    finally:
        for name in names:
            with contextlib.suppress(CallError):
                await client.delete_action(name)
