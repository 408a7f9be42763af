"""Traffic of one action that moves between Routers, and what each of its requests waited for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from slotway.aio import Client
from tests.integration.parts import Parts

CODE = b"""
import asyncio
async def main(args):
    await asyncio.sleep(args["sleep_s"])
    return {}
"""
STAY_S = 0.5
"""How long the traffic stays at a Router: longer than a share is left alone after it changed."""
ROUND_S = 5.0
"""How long the traffic goes round all Routers."""
WAITED_S = 0.002
"""Less than this is no wait: a Router's thread may not have run for so long."""


@dataclass
class Move:
    """One move. The Routers' own clocks measure the waits, so that a busy client does not count."""

    settled_s: float = 0.0
    """From the move to the end of the last wait for a slot."""
    longest_s: float = 0.0
    """The longest wait of a request."""
    requests: int = 0


@dataclass
class Traffic:
    """A closed loop of two requests at once fewer than the container has slots: whenever one of
    them waits for a slot, one idles somewhere. The other two stay where no traffic is, so that no
    Router is without a share, and forwards what comes to it."""

    parts: Parts
    concurrency: int
    sleep_s: float
    containers: set[str] = field(default_factory=set)

    @property
    def action(self) -> str:
        return f"moving/c{self.concurrency}"

    async def prepare(self) -> None:
        """Puts the action, and makes its container."""
        client = self.parts.clients[0]
        await client.put_action(self.action, CODE, concurrency=self.concurrency)
        await client.invoke(self.action, {"sleep_s": 0}, timeout=30)
        await asyncio.sleep(STAY_S)

    async def at(self, router: int) -> Move:
        """All of the traffic comes to this Router, for `STAY_S`, and ends."""
        move, began = Move(), time.monotonic()
        client = self.parts.clients[router]

        async def worker() -> None:
            while (sent := time.monotonic()) - began < STAY_S:
                await self._one(client, move, sent - began)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.concurrency - 2):
                group.create_task(worker())
        return move

    async def _one(self, client: Client, move: Move, sent_s: float) -> None:
        answer = await client.invoke(self.action, {"sleep_s": self.sleep_s}, timeout=30)
        waited_s = answer.wait.total_seconds()
        move.requests += 1
        move.longest_s = max(move.longest_s, waited_s)
        if waited_s > WAITED_S:
            move.settled_s = max(move.settled_s, sent_s + waited_s)
        self.containers.add(answer.container_id)


async def go_round(parts: Parts, containers: int) -> tuple[int, int]:
    """Requests for one action with C=1 go to one Router after the other, for `ROUND_S`, one at a
    time for each of so many containers; returns how many, and how many writes of the ledger they
    cost."""
    name = f"moving/round-{containers}"
    await parts.clients[0].put_action(name, CODE)
    places = len(parts.clients)

    async def worker(first: int, until: float) -> int:
        sent = 0
        while time.monotonic() < until:
            client = parts.clients[(first + sent) % places]
            await client.invoke(name, {"sleep_s": 0.01}, timeout=30)
            sent += 1
        return sent

    async def all_of_them(seconds: float) -> int:
        until = time.monotonic() + seconds
        return sum(await asyncio.gather(*(worker(i, until) for i in range(containers))))

    await all_of_them(STAY_S)  # the containers are there, and their slots where they are used
    before = await parts.revision()
    sent = await all_of_them(ROUND_S)
    return sent, await parts.revision() - before
