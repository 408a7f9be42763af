"""What the faults work on: the cluster's parts, and how it is seen that they are down or back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from slotway.cli.child import Child
from slotway.errors import SlotwayError
from slotway.etcd.server import EtcdServer
from slotway.v1.cluster_pb2 import Cluster
from tests.drills.campaign.network import Network
from tests.drills.mixture.load import Load
from tests.drills.mixture.witness import Witness
from tests.integration.parts import Parts

if TYPE_CHECKING:
    from tests.drills.campaign.clocks import Clocks

BACK_S = 60.0
"""For a part to be what it was before."""
SEEN_S = 10.0
"""For a fault to be seen to take effect."""
POLL_S = 0.05

Term = tuple[int, int]


class NoEffect(Exception):  # noqa: N818
    """A fault was injected, and nothing of it was seen."""


@dataclass
class Ground:
    """One cluster. `network` is None where it lives on the loopback interface, `clocks` where no
    clock can be set."""

    parts: Parts
    load: Load
    witness: Witness
    network: Network | None = None
    clocks: Clocks | None = None
    stood: set[int] = field(default_factory=set)
    """Processes that were stopped, and not continued."""

    async def cluster(self) -> Cluster:
        """The cluster as its leader tells it, as soon as there is one."""
        async with asyncio.timeout(BACK_S):
            while True:
                with contextlib.suppress(SlotwayError):
                    return await self.parts.show()
                await asyncio.sleep(POLL_S)

    async def term(self) -> Term:
        """The leader's."""
        term = (await self.cluster()).term
        return term.epoch, term.revision

    async def leader(self) -> Child:
        """The leading Manager."""
        name = (await self.cluster()).leader
        return next(child for child in self.parts.managers if child.name == name)

    async def standby(self, rng: random.Random) -> Child:
        """A Manager that does not lead."""
        led_by = await self.leader()
        return rng.choice([child for child in self.parts.managers if child is not led_by])

    def router(self, rng: random.Random) -> Child:
        """One of them."""
        return rng.choice(self.parts.routers)

    def etcd(self, rng: random.Random) -> EtcdServer:
        """One member."""
        return rng.choice(self.parts.etcds)

    async def until_new_term(self, before: Term) -> Term:
        """Waits until another leader is told by Routers."""
        async with asyncio.timeout(BACK_S):
            while (term := await self.term()) <= before:
                await asyncio.sleep(POLL_S)
        return term

    async def until_whole(self) -> None:
        """Waits until every Router lives, and every other Manager stands by."""
        await self.parts.until_live()
        async with asyncio.timeout(BACK_S):
            while sum(one.ready for one in (await self.cluster()).standbys) < (
                len(self.parts.managers) - 1
            ):
                await asyncio.sleep(POLL_S)

    @contextlib.asynccontextmanager
    async def stopped(self, pid: int) -> AsyncIterator[None]:
        """SIGSTOP for as long as this lasts, and every thread of it is seen to be stopped."""
        os.kill(pid, signal.SIGSTOP)
        self.stood.add(pid)
        try:
            await until(lambda: states(pid) == {"T"}, f"process {pid} does not stop")
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            self.stood.discard(pid)
        await until(lambda: "T" not in states(pid), f"process {pid} does not go on")


async def until(holds: Callable[[], bool], otherwise: str, seconds: float = SEEN_S) -> None:
    """Waits for what a fault has to do; NoEffect if it does not."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not holds():
        if asyncio.get_running_loop().time() > deadline:
            raise NoEffect(otherwise)
        await asyncio.sleep(POLL_S)


def states(pid: int) -> set[str]:
    """The states of all of the process's threads, as the kernel tells them: "T" is stopped."""
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            found.add(path.read_text().rpartition(")")[2].split()[0])
    return found


def died(pid: int) -> bool:
    """Whether no such process is left, but for what its parent has not read."""
    return states(pid) <= {"Z", "X"}


Fault = Callable[[Ground, random.Random], Awaitable[str]]
"""Injects one, sees that it takes effect, ends it, and waits until all parts are back; says what
was seen. Raises NoEffect."""
