"""Faults of the network: between two kinds of parts, one way or both; resets; a slow link."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence

from tests.drills.campaign.ground import SEEN_S, Fault, Ground, NoEffect
from tests.drills.campaign.network import DROP, RESET, Network, Rule

CUT_S = (1.0, 4.0)
RESET_S = 0.5
SLOW_S = (2.0, 4.0)
Ends = tuple[list[str], list[str]]
"""The names of the parts at either end."""


async def _leader_etcd(ground: Ground, rng: random.Random) -> Ends:
    return [(await ground.leader()).name], [server.name for server in ground.parts.etcds]


async def _leader_router(ground: Ground, rng: random.Random) -> Ends:
    return [(await ground.leader()).name], [ground.router(rng).name]


async def _router_router(ground: Ground, rng: random.Random) -> Ends:
    one, *others = rng.sample([router.name for router in ground.parts.routers], 3)
    return [one], others


PAIRS = {
    "leader-etcd": _leader_etcd,
    "leader-router": _leader_router,
    "router-router": _router_router,
}
WAYS = ("one way", "the other way", "both ways", "reset")


def _network(ground: Ground) -> Network:
    assert ground.network is not None
    return ground.network


def cut(pair: str, way: str) -> Fault:
    """The fault of this pair; `way` is one of WAYS."""

    async def inject(ground: Ground, rng: random.Random) -> str:
        network, (these, those) = _network(ground), await PAIRS[pair](ground, rng)
        how = RESET if way == "reset" else DROP
        before = _resets(network, [*these, *those])
        async with contextlib.AsyncExitStack() as stack:
            deaf = [(name, these) for name in those if way != "the other way"]
            deaf += [(name, those) for name in these if way != "one way"]
            rules = [
                await stack.enter_async_context(network.deaf(name, others, how))
                for name, others in deaf
            ]
            await asyncio.sleep(RESET_S if how == RESET else rng.uniform(*CUT_S))
            met = await _met(rules)
        reset = _resets(network, [*these, *those]) - before
        await ground.until_whole()
        if how == RESET and not reset:
            raise NoEffect(f"no connection was reset, of {met} packets")
        between = f"{', '.join(these)} | {', '.join(those)}"
        return f"{between}: {met} packets{f', {reset} connections reset' if how == RESET else ''}"

    return inject


async def _met(rules: Sequence[Rule]) -> int:
    """Waits until some were met; all that were."""
    deadline = asyncio.get_running_loop().time() + SEEN_S
    while not (met := sum(rule.packets() for rule in rules)):
        if asyncio.get_running_loop().time() > deadline:
            raise NoEffect("no packet was met")
        await asyncio.sleep(0.05)
    return met


def _resets(network: Network, names: Sequence[str]) -> int:
    return sum(network.resets(name) for name in names)


async def slow(ground: Ground, rng: random.Random) -> str:
    """All that one part sends goes slowly for a while."""
    network = _network(ground)
    names = [(await ground.leader()).name, ground.router(rng).name, ground.etcd(rng).name]
    name = rng.choice(names)
    async with network.slow(name):
        await asyncio.sleep(rng.uniform(*SLOW_S))
        held_back = network.held_back(name)
    await ground.until_whole()
    if not held_back:
        raise NoEffect(f"{name} sent too little to be held back")
    return f"{name}: {held_back} packets held back"
