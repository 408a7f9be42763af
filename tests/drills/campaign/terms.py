"""A witness of what Routers obey (I2): it asks each, one question after the other, for the cluster.
A Router passes that on to the leader whose term it obeys, and the answer names the term."""

from __future__ import annotations

import asyncio
from collections import Counter

from slotway.errors import SlotwayError
from tests.integration.parts import Parts

PAUSE_S = 0.1
ASK_S = 2.0

Term = tuple[int, int]


class TermWitness:
    """Asks for as long as it is entered."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.faults: list[str] = []
        self.answers: Counter[str] = Counter()
        self._newest: dict[tuple[str, int], Term] = {}
        """By the Router's name and process."""

    async def __aenter__(self) -> TermWitness:
        self._tasks = [
            asyncio.create_task(self._ask_for_ever(number))
            for number in range(len(self._parts.routers))
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def alive(self) -> bool:
        """Whether it still asks everybody."""
        return not any(task.done() for task in self._tasks)

    async def _ask_for_ever(self, number: int) -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            child = self._parts.routers[number]
            pid = child.pid
            try:
                async with asyncio.timeout(ASK_S):
                    term = (await self._parts.clients[number].cluster()).term
            except (SlotwayError, TimeoutError):
                continue
            if child.pid == pid:
                self.take(child.name, pid, (term.epoch, term.revision))

    def take(self, router: str, pid: int, term: Term) -> None:
        """One answer."""
        self.answers[router] += 1
        newest = self._newest.get((router, pid), term)
        if term < newest:
            self.faults.append(f"I2: {router} went back from the term {newest} to {term}")
        self._newest[(router, pid)] = max(newest, term)
