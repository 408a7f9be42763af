"""The steady load, and what became of every request."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slotway.aio import ApplicationError, CallError, Client

TIMEOUT_S = 3.0
"""Of the actions."""
PATIENCE_S = 30.0
"""Of the callers."""
HUNG_S = PATIENCE_S + 10
PAUSE_S = 1.0
"""After a request whose Router was away."""
EXPECTED = {
    "ok",
    "as told",
    "ACTION_NOT_FOUND",
    "ACTION_TIMEOUT",
    "CLUSTER_FULL",
    "CONTAINER_LOST",
    "CREATE_FAILED",
    "DEADLINE",
    "DEADLINE_EXCEEDED",
    "MAX_WAIT",
    "QUEUE_FULL",
    "STOPPING",
    "UNAVAILABLE",
}
"""UNAVAILABLE is the connection to a Router that was killed, STOPPING one that ends in order."""


@dataclass(frozen=True, slots=True)
class Kind:
    """An action, and the workers that call it for as long as the load lasts."""

    name: str
    concurrency: int
    workers: int
    sleep_s: tuple[float, float]
    pause_s: tuple[float, float]


STEADY = (
    Kind("mix/one", 1, 3, (0.005, 0.03), (0.05, 0.15)),
    Kind("mix/ten", 10, 14, (0.02, 0.1), (0.05, 0.15)),
    Kind("mix/many", 200, 16, (0.02, 0.1), (0.05, 0.15)),
    Kind("mix/slow", 10, 4, (0.3, 1.5), (0.05, 0.15)),
)
FULL = tuple(Kind(f"full/{number}", 1, 0, (0.2, 0.4), (0, 0)) for number in range(6))
MOODS = {"": 0.984, "raise": 0.01, "overrun": 0.001, "hang up": 0.005}


class Load:
    """Callers that go through all Routers."""

    def __init__(
        self,
        clients: list[Client],
        witness: tuple[str, int],
        moods: Mapping[str, float] = MOODS,
    ) -> None:
        """`moods`: how often an action misbehaves in which way."""
        self.clients, self._witness, self._moods = clients, witness, dict(moods)
        self.capacities = {kind.name: kind.concurrency for kind in (*STEADY, *FULL)}
        self.homes: dict[str, int] = {}
        """Actions whose traffic goes to one Router only."""
        self.outcomes: Counter[str] = Counter()
        self.odd: list[str] = []
        """What should not have been answered, or was not at all."""
        self.answered: set[str] = set()
        self.sent = 0
        self.stopping = asyncio.Event()
        self._versions = 0
        self._code = (Path(__file__).parent / "action.py").read_text()

    async def put(self, name: str, client: Client) -> None:
        """Puts an action, with code that it never had before."""
        self._versions += 1
        capacity = self.capacities.setdefault(name, 1)
        values = {
            '("WITNESS", 0)': repr(self._witness),
            "CAPACITY": str(capacity),
            "VERSION": str(self._versions),
        }
        code = self._code
        for placeholder, value in values.items():
            code = code.replace(placeholder, value)
        await client.put_action(
            name,
            code.encode(),
            concurrency=capacity,
            timeout=TIMEOUT_S,
            memory_mib=128,
        )

    async def one(
        self,
        name: str,
        arguments: dict[str, Any],
        *,
        router: int = 0,
        patience_s: float = PATIENCE_S,
        run: str = "",
    ) -> str:
        """One request; returns what became of it."""
        run = run or uuid.uuid4().hex
        self.sent += 1
        outcome = "hung"
        try:
            async with asyncio.timeout(HUNG_S):
                await self.clients[router].invoke(
                    name, arguments, timeout=patience_s, activation_id=run
                )
            outcome = "ok"
            self.answered.add(run)
        except ApplicationError as error:
            outcome = "as told" if "as told" in str(error) else f"application error: {error}"
        except CallError as error:
            outcome = error.reason or error.code.name
        except TimeoutError:
            pass
        self.outcomes[outcome] += 1
        if outcome not in EXPECTED and len(self.odd) < 20:
            self.odd.append(f"{name}: {outcome}")
        return outcome

    async def work(self, kind: Kind, rng: random.Random) -> None:
        """One worker, until `stopping`."""
        while not self.stopping.is_set():
            mood = rng.choices(list(self._moods), list(self._moods.values()))[0]
            sleep_s = TIMEOUT_S + 1 if mood == "overrun" else rng.uniform(*kind.sleep_s)
            patience_s = rng.uniform(0.001, 0.1) if mood == "hang up" else PATIENCE_S
            home = self.homes.get(kind.name)
            outcome = await self.one(
                kind.name,
                {"mood": mood, "sleep_s": sleep_s},
                router=rng.randrange(len(self.clients)) if home is None else home,
                patience_s=patience_s,
            )
            away = outcome == "UNAVAILABLE"
            await asyncio.sleep(PAUSE_S if away else rng.uniform(*kind.pause_s))

    async def come_and_go(self, rng: random.Random) -> None:
        """Actions that are new, called a few times at once, and deleted."""
        number = 0
        while not self.stopping.is_set():
            name, number = f"cold/{number}", number + 1
            self.capacities[name] = rng.choice([1, 2, 10])
            router = rng.randrange(len(self.clients))
            try:
                await self.put(name, self.clients[router])
                calls = [self.one(name, {"sleep_s": 0.05}, router=router) for _ in range(3)]
                await asyncio.gather(*calls)
                await self.clients[(router + 1) % len(self.clients)].delete_action(name)
            except CallError:
                pass  # a Router that is away; what is left of the action is idle
            await asyncio.sleep(rng.uniform(1, 4))
