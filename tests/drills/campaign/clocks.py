"""Clocks that jump, by libfaketime: of each Manager, of each Router, and of all containers.

Only what tells the date jumps. The monotonic clock stays what it is, as it does where an
administrator or NTP sets a machine's clock. (etcd is a Go program: libfaketime does not reach it.)
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import json
import random
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from slotway.aio import Client
from slotway.cli.child import Child
from tests.drills.campaign.ground import Ground, NoEffect
from tests.drills.mixture.load import TIMEOUT_S
from tests.integration.parts import Places

LIBRARIES = "/usr/lib/*/faketime/libfaketime.so.1"
PACKAGE = "libfaketime"
CONTAINERS = "containers"
SITE = Path(__file__).parent / "site"
JUMPS_S = (30.0, 86_400.0)
CLOSE_S = 20.0
"""How near a clock has to be to where it was set: an answer takes its time."""
SEEN_S = 20.0
HELD_S = (1.0, 3.0)


def library() -> str:
    """The one to preload; empty if it is not installed."""
    return next(iter(sorted(glob.glob(LIBRARIES))), "")


class Clocks(Places):
    """Gives the Managers and Routers of other places a clock each."""

    def __init__(self, places: Places, folder: Path) -> None:
        self._places, self._folder = places, folder
        self.here = places.here
        folder.mkdir(parents=True)
        shutil.copy(SITE / "sitecustomize.py", folder)
        self.set(CONTAINERS, 0)
        (folder / "containers.json").write_text(json.dumps(self._variables(CONTAINERS)))

    def host(self, name: str) -> str:
        """See `Places`."""
        return self._places.host(name)

    def command(self, name: str) -> list[str]:
        """See `Places`."""
        before = self._places.command(name)
        if name.startswith("etcd"):
            return before
        self.set(name, 0)
        variables = self._variables(name)
        if name.startswith("manager"):
            variables["PYTHONPATH"] = str(self._folder)
        return [*before, "env", *(f"{key}={value}" for key, value in variables.items())]

    def _variables(self, name: str) -> dict[str, str]:
        return {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._folder / name),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }

    def set(self, name: str, offset_s: float) -> None:
        """Sets a clock so far from the true time; it is read anew once a second."""
        new = self._folder / f"{name}.new"
        new.write_text(f"{offset_s:+.0f}\n")
        new.replace(self._folder / name)

    @contextlib.asynccontextmanager
    async def jump(
        self, name: str, offset_s: float, ask: Callable[[], Awaitable[float]]
    ) -> AsyncIterator[float]:
        """Sets a clock for as long as this lasts. `ask` has the process itself say what time it is,
        and so it is seen when the clock has jumped, there and back."""
        self.set(name, offset_s)
        try:
            yield await _until_at(offset_s, ask)
        finally:
            self.set(name, 0)
        await _until_at(0, ask)


async def _until_at(offset_s: float, ask: Callable[[], Awaitable[float]]) -> float:
    deadline = asyncio.get_running_loop().time() + SEEN_S
    while abs((seen := await ask() - time.time()) - offset_s) > CLOSE_S:
        if asyncio.get_running_loop().time() > deadline:
            raise NoEffect(f"the clock is {seen:.0f} s off, and was set {offset_s:.0f} s off")
        await asyncio.sleep(0.1)
    return seen


def _offset(rng: random.Random) -> float:
    return float(round(rng.choice([-1, 1]) * rng.uniform(*JUMPS_S)))


def _client(ground: Ground, child: Child) -> Client:
    return ground.parts.clients[ground.parts.routers.index(child)]


async def _jump(
    ground: Ground, rng: random.Random, name: str, ask: Callable[[], Awaitable[float]]
) -> str:
    assert ground.clocks is not None
    async with ground.clocks.jump(name, _offset(rng), ask) as seen:
        await asyncio.sleep(rng.uniform(*HELD_S))
    await ground.until_whole()
    return f"{name}: {seen:+.0f} s and back"


async def jump_leader(ground: Ground, rng: random.Random) -> str:
    """The leading Manager's clock; it says when an action was put."""
    before, child = await ground.term(), await ground.leader()

    async def ask() -> float:
        name = f"clock/{uuid.uuid4().hex}"
        client = ground.parts.clients[0]
        put = await client.put_action(name, b"def main(args): return {}")
        await client.delete_action(name)
        return put.updated_at.ToMicroseconds() / 1e6

    seen = await _jump(ground, rng, child.name, ask)
    return f"{seen}, the leader {'stayed' if await ground.term() == before else 'changed'}"


async def jump_router(ground: Ground, rng: random.Random) -> str:
    """A Router's clock; actions are told by it when their time is up. (That the ids which it makes
    do not go back is on purpose.)"""
    child = ground.router(rng)

    async def ask() -> float:
        client = _client(ground, child)
        activation = await client.invoke("mix/ten", {"mood": "clock"}, timeout=20.0)
        return float(activation.result["deadline_s"]) - TIMEOUT_S

    return await _jump(ground, rng, child.name, ask)


async def jump_containers(ground: Ground, rng: random.Random) -> str:
    """The clock of all containers; the action's code says what time it is."""

    async def ask() -> float:
        client = rng.choice(ground.parts.clients)
        activation = await client.invoke("mix/ten", {"mood": "clock"}, timeout=20.0)
        return float(activation.result["now_s"])

    return await _jump(ground, rng, CONTAINERS, ask)
