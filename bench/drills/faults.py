"""The faults, once each: what is done to the cluster, and when a Router's new share followed it.

Every moment is of `time.monotonic_ns`. A fault's is the one just before its system call; the
container is demanded after that, of an action that was put before and has none.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drills.outage import first_put, leading_member
from drills.world import World, signal_member
from slotway.etcd.servers import start_all

AWAY_S = 60.0
PATIENCE_S = 240.0
"""For a cold request: its repetition has a deadline of its own."""
AFTER_NS = 2_000_000_000
"""For so long after a fault the leaders' pauses count."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One fault; milliseconds from the fault, or from the first put where etcd was away."""

    share_ms: float
    answer_ms: float
    """Of the cold request."""
    pause_ms: float = 0.0
    """The longest time in which a Manager's event loop that was not stopped did not turn."""
    etcd_ms: float | None = None
    """When a raw writer's first put was answered."""


async def _follow(world: World, action: str, began: int) -> tuple[int, int]:
    """Demands a container; when the share and when the answer came."""
    asking = asyncio.create_task(world.client.invoke(action, {}, timeout=PATIENCE_S))
    try:
        share = await world.probe.share(action)
        await asking
        answered = time.monotonic_ns()
    finally:
        asking.cancel()
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await asking
    assert share > began
    return share, answered


async def handover(world: World) -> Sample:
    """The leader is asked to stop (SIGTERM)."""
    return await _leader(world, signal.SIGTERM)


async def killed(world: World) -> Sample:
    """The leader is killed (SIGKILL)."""
    return await _leader(world, signal.SIGKILL)


async def stopped(world: World) -> Sample:
    """The leader is stopped (SIGSTOP), and goes on when another one leads."""
    return await _leader(world, signal.SIGSTOP)


async def _leader(world: World, number: signal.Signals) -> Sample:
    await world.led()
    async with world.cold() as action:
        leads, follows = await world.old()
        began = leads.send(number)
        try:
            share, answered = await _follow(world, action, began)
        finally:
            if number is signal.SIGSTOP:
                leads.send(signal.SIGCONT)
        if number is signal.SIGSTOP:
            await world.until("the old leader knows", lambda: leads.role != "leads")
        else:
            await leads.wait()
            await leads.start()
        return Sample(
            (share - began) / 1e6,
            (answered - began) / 1e6,
            follows.paused_ms(began, began + AFTER_NS),
        )


async def etcd_leader_killed(world: World) -> Sample:
    """etcd's own leader is killed, one of three members; a raw writer beside it tells how long etcd
    was away."""
    await world.led()
    async with world.cold() as action:
        await world.old()
        member = await leading_member(world.members)
        others = [one.endpoint for one in world.members if one is not member]
        began = signal_member(member, signal.SIGKILL)
        putting = asyncio.create_task(first_put(others))
        try:
            share, answered = await _follow(world, action, began)
            put = await putting
        finally:
            putting.cancel()
            await member.stop(signal.SIGKILL)
            await member.start()
        return Sample(*(_ms(at - began) for at in (share, answered)), etcd_ms=_ms(put - began))


def etcd_away(seconds: float = AWAY_S) -> Callable[[World], object]:
    """All of etcd goes away for so long: stopped, or killed and started again, by turns. Times
    count from the first put that a raw writer got through."""
    turns = 0

    async def away(world: World) -> Sample:
        nonlocal turns
        turns += 1
        await world.led()
        async with world.cold() as action:
            await world.old()
            number = signal.SIGSTOP if turns % 2 else signal.SIGKILL
            began = min([signal_member(member, number) for member in world.members])
            following = asyncio.create_task(_follow(world, action, began))
            try:
                await asyncio.sleep(seconds)
                putting = asyncio.create_task(first_put([one.endpoint for one in world.members]))
                await _bring_back(world, number)
                put = await putting
                share, answered = await following
            finally:
                following.cancel()
            return Sample(_ms(share - put), _ms(answered - put), etcd_ms=_ms(put - began))

    return away


async def _bring_back(world: World, number: signal.Signals) -> None:
    if number is signal.SIGSTOP:
        for member in world.members:
            signal_member(member, signal.SIGCONT)
        return
    for member in world.members:
        await member.stop(signal.SIGKILL)
    await start_all(world.members)


def _ms(ns: int) -> float:
    return ns / 1e6


def quantile(values: Sequence[float], part: float) -> float:
    """The nearest rank: the least value that so large a part of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-part * len(ordered) // 1) - 1)]
