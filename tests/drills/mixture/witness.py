"""The witness: it hears from the action's own code, over one connection per container, what runs.

It shares nothing with Slotway. A container's messages come in their order; a container that dies
closes its connection, which ends all that ran in it.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Seen:
    """One container."""

    capacity: int
    running: set[str] = field(default_factory=set)
    highest: int = 0


class Witness:
    """Listens on `listener`, an address that containers reach."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.address = listener.getsockname()[:2]
        self.containers: dict[str, Seen] = {}
        self.ran_in: dict[str, str] = {}
        """The container of each run that has begun."""
        self.ended: set[str] = set()
        self.cut = 0
        """Runs that ended with their containers."""
        self.closed = 0
        """Connections that are over."""
        self.faults: list[str] = []
        self.changed = asyncio.Condition()

    async def start(self) -> None:
        """Begins to listen."""
        self._server = await asyncio.start_server(self._hear, sock=self._listener)

    def stop(self) -> None:
        """Ends it."""
        self._server.close()

    async def begun(self, run: str, seconds: float) -> str | None:
        """The container that the run has begun in; None if it did not within so many seconds."""
        try:
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(lambda: run in self.ran_in)
        except TimeoutError:
            return None
        return self.ran_in[run]

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, seen = "", Seen(0)
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                what, *words = line.decode().split()
                if what == "container":
                    name, seen = words[0], Seen(int(words[1]))
                    if name in self.containers:
                        self.faults.append(f"container {name} came twice")
                    self.containers[name] = seen
                else:
                    self._take(name, seen, what, words[0], int(words[2]))
                    async with self.changed:
                        self.changed.notify_all()
        except (ConnectionError, ValueError, IndexError) as error:
            self.faults.append(f"what container {name} said was lost: {error!r}")
        finally:
            self.cut += len(seen.running)
            seen.running.clear()
            writer.close()
            async with self.changed:
                self.closed += 1
                self.changed.notify_all()

    def _take(self, name: str, seen: Seen, what: str, run: str, running: int) -> None:
        if what == "begin":
            if run in self.ran_in:
                self.faults.append(f"run {run} began in {self.ran_in[run]} and in {name}")
            self.ran_in[run] = name
            seen.running.add(run)
            if len(seen.running) != running:
                self.faults.append(f"{name} says {running} run, heard of {len(seen.running)}")
            seen.highest = max(seen.highest, len(seen.running))
            if len(seen.running) > seen.capacity:
                self.faults.append(f"{name} runs {len(seen.running)}, and has C={seen.capacity}")
        else:
            seen.running.discard(run)
            self.ended.add(run)

    def highest(self) -> dict[int, int]:
        """By C: the most that ran at once in one container."""
        found: Counter[int] = Counter()
        for seen in self.containers.values():
            found[seen.capacity] = max(found[seen.capacity], seen.highest)
        return dict(sorted(found.items()))

    def verdict(self, answered: set[str]) -> Iterator[str]:
        """Every promise that it saw broken; `answered` are runs whose callers got a result."""
        yield from self.faults[:20]
        if unseen := answered - self.ended:
            yield f"{len(unseen)} runs were answered that it never saw to end: {min(unseen)}"
