"""Warm requests all the while: open-loop, at a fixed rate, through real Routers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from drills.world import World
from slotway.load import Arrivals, Generator, Shape

RATE = 350.0
"""Requests per second of each action."""
SECONDS_MAX = 3600.0
LATE_S = 0.1
ACTIONS = {"bench/ten": (10, 1, 15), "bench/one": (1, 6, 2)}
"""C, containers, and how long a request takes, ms."""


@dataclass(slots=True)
class Account:
    """What became of the requests of one event, or of several."""

    requests: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    late: int = 0
    """Answered, but after more than LATE_S."""
    over: int = 0
    """By how many the witness's maximum was above C, at most."""
    seen: dict[str, int] = field(default_factory=dict)
    """Per action: the most that a container saw at once."""

    def add(self, other: "Account") -> None:
        """Sums up."""
        self.requests += other.requests
        self.late += other.late
        self.over = max(self.over, other.over)
        for why, count in other.failed.items():
            self.failed[why] = self.failed.get(why, 0) + count
        for name, seen in other.seen.items():
            self.seen[name] = max(seen, self.seen.get(name, 0))


async def prepare(world: World) -> None:
    """Puts the actions and has them warm at every Router."""
    for name, (concurrency, containers, _) in ACTIONS.items():
        await world.put(
            name, concurrency=concurrency, containers_min=containers, containers_max=containers
        )
    slots = {
        name: concurrency * containers for name, (concurrency, containers, _) in ACTIONS.items()
    }
    async with asyncio.timeout(60):
        await asyncio.gather(
            *(
                client.invoke(name, {"hold_ms": 50}, timeout=30)
                for client in world.clients
                for name, count in slots.items()
                for _ in range(count // len(world.clients))
            )
        )


@contextlib.asynccontextmanager
async def warm(world: World, account: Account, rate: float = RATE) -> AsyncIterator[Generator]:
    """Load until the end of the block; what became of it is added to the account."""
    targets = [(name, b'{"hold_ms":%d}' % hold, 1.0) for name, (_, _, hold) in ACTIONS.items()]
    generator = Generator(
        world.addresses,
        targets,
        Arrivals(rate * len(ACTIONS), SECONDS_MAX, Shape.POISSON),
        deadline_s=60.0,
        late_s=LATE_S,
        bucket_s=0.02,
    )
    generator.start()
    try:
        yield generator
    finally:
        generator.stop()
        report = await asyncio.to_thread(generator.join)
        of = Account()
        for action in report.actions:
            capacity = ACTIONS[action.action][0]
            of.requests += sum(action.outcomes.values())
            of.late += action.late
            of.over = max(of.over, action.seen_max - capacity)
            of.seen[action.action] = action.seen_max
            for why, count in action.outcomes.items():
                if why != "ok":
                    of.failed[why] = of.failed.get(why, 0) + count
        account.add(of)
