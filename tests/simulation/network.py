"""The network between simulated processes: ordered connections with delays, cuts and resets.

A connection is like TCP's: what is sent arrives in order, or never. A cut loses nothing by itself:
what was sent meanwhile is sent again when the cut is over, so that old words arrive late; or the
connection is found broken then. A connection to a process that was killed is reset as soon as that
can be told. Cuts have a direction. Delays are random, of a seed.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Protocol

from tests.simulation.loop import NODE, Node, VirtualLoop

DELAY_S = 0.0004
CONNECT_S = 1.0
"""How long an attempt to connect into a cut takes to fail."""
RETRANSMIT_S = 0.8
"""What was lost in a cut is sent again within this time after it."""
BREAKS = 0.3
"""How probably a connection that has something to send again is found broken instead."""


class Endpoint(Protocol):
    """One end of a connection."""

    def broken(self, why: str) -> None:
        """The connection is over, at this end."""


class Pipe:
    """One direction of a connection."""

    def __init__(self, network: Network, source: Node, target: Node) -> None:
        self.network, self.source, self.target = network, source, target
        self.held: deque[Callable[[], None]] = deque()
        self.over = False
        """Nothing arrives any more."""
        self._last = 0.0

    def send(self, deliver: Callable[[], None]) -> None:
        """Has `deliver` called at the other end."""
        if self.over:
            return
        if self.held or self.network.is_cut(self.source, self.target):
            self.network.count["held"] += 1
            self.held.append(deliver)
        else:
            self._schedule(deliver)

    def flush(self) -> None:
        """The cut is over: sends again."""
        held, self.held = self.held, deque()
        for deliver in held:
            self.send(deliver)

    def _schedule(self, deliver: Callable[[], None]) -> None:
        network = self.network
        delay = network.delay(self.source, self.target)
        self._last = max(self._last + 1e-7, network.loop.time() + delay)
        network.loop.call_at(self._last, self._arrive, deliver, context=self.target.context)

    def _arrive(self, deliver: Callable[[], None]) -> None:
        if not self.over:
            self.network.count["messages"] += 1
            deliver()


class Connection:
    """Two pipes, from who opened it and back."""

    def __init__(self, network: Network, client: Node, server: Node, number: int) -> None:
        self.network, self.client, self.server, self.number = network, client, server, number
        self.up = Pipe(network, client, server)
        self.down = Pipe(network, server, client)
        self.client_end: Endpoint | None = None
        self.server_end: Endpoint | None = None

    def close(self, why: str, *, by: Node) -> None:
        """Ends it at one end, at once; the other is told as soon as that can be: after all that
        was sent."""
        for pipe, end, node in (
            (self.up, self.server_end, self.server),
            (self.down, self.client_end, self.client),
        ):
            if node is not by:
                tell = functools.partial(self._tell, pipe, end, why)
                pipe.send(tell)
            elif not pipe.over:
                pipe.over = True
                if end is not None and not node.dead:
                    end.broken(why)
        self._forget()

    def reset(self, why: str) -> None:
        """Breaks at once: what is on its way is lost."""
        self.network.connections.pop(self.number, None)
        for pipe, end in ((self.up, self.server_end), (self.down, self.client_end)):
            if not pipe.over:
                pipe.over = True
                pipe.held.clear()
                node = pipe.target
                if end is not None and not node.dead:
                    self.network.loop.call_soon(end.broken, why, context=node.context)

    def _tell(self, pipe: Pipe, end: Endpoint | None, why: str) -> None:
        pipe.over = True
        self._forget()
        if end is not None:
            end.broken(why)

    def _forget(self) -> None:
        if all(pipe.over or pipe.target.dead for pipe in (self.up, self.down)):
            self.network.connections.pop(self.number, None)


class Probe(asyncio.Transport):
    """A connection that is opened only to see whether somebody listens."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing was sent."""

    def write(self, data: object) -> None:
        raise AssertionError("a probe sends nothing")


class Network:
    """Who listens where, what is cut, and how long things take."""

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        self.loop, self.random = loop, random
        self.listeners: dict[int, tuple[Node, Callable[[Connection], None] | None]] = {}
        self.connections: dict[int, Connection] = {}
        self.count: Counter[str] = Counter()
        self.slow: dict[str, float] = {}
        """By the name of a process: how many times as long its messages take."""
        self._cuts: Counter[tuple[str, str]] = Counter()
        self._numbers = itertools.count(1)
        self._ports = itertools.count(20_000)
        loop.connect = self._probe

    def delay(self, source: Node, target: Node) -> float:
        """Of one message, in seconds."""
        factor = max(self.slow.get(source.name, 1.0), self.slow.get(target.name, 1.0))
        return factor * (DELAY_S / 4 + self.random.expovariate(1 / DELAY_S))

    # Who listens.

    def listen(self, port: int, accept: Callable[[Connection], None] | None) -> int:
        """The process that runs listens; port 0: any. Raises OSError if the port is taken."""
        node = NODE.get()
        assert node is not None
        port = port or next(self._ports)
        other = self.listeners.get(port)
        if other is not None and not other[0].dead:
            raise OSError(f"port {port} is in use")
        self.listeners[port] = (node, accept)
        return port

    def close(self, port: int) -> None:
        """Nobody listens there any more."""
        self.listeners.pop(port, None)

    def kill(self, node: Node) -> None:
        """The process is gone: its kernel resets what it had open."""
        node.dead = True
        node.backlog.clear()
        for connection in list(self.connections.values()):
            if node in (connection.client, connection.server):
                connection.close("connection reset by peer", by=node)

    # What is cut.

    def is_cut(self, source: Node, target: Node) -> bool:
        """Whether nothing passes this way."""
        return bool(self._cuts) and self._cuts[source.name, target.name] > 0

    def cut(self, source: str, target: str) -> None:
        """Nothing passes this way, until as many `heal`s."""
        self._cuts[source, target] += 1

    def heal(self, source: str, target: str) -> None:
        """See `cut`."""
        self._cuts[source, target] -= 1
        if self._cuts[source, target] > 0:
            return
        del self._cuts[source, target]
        for connection in list(self.connections.values()):
            for pipe in (connection.up, connection.down):
                if (pipe.source.name, pipe.target.name) == (source, target) and pipe.held:
                    if self.random.random() < BREAKS:
                        connection.reset("connection timed out")
                    else:
                        pause = self.random.uniform(0, RETRANSMIT_S)
                        self.loop.call_later(pause, pipe.flush)

    # Connecting.

    async def dial(self, port: int, *, talks: bool = True) -> Connection:
        """Opens a connection from the process that runs. Raises ConnectionRefusedError, or
        TimeoutError. `talks`: the other process has to answer, and not its kernel only."""
        node = NODE.get()
        assert node is not None
        await asyncio.sleep(self.random.uniform(0.5, 2) * DELAY_S)
        until = self.loop.time() + CONNECT_S
        while True:
            there, accept = self.listeners.get(port, (None, None))
            if there is None or there.dead:
                host = there.name if there is not None else ""
                if not self._cuts or self._cuts[node.name, host] + self._cuts[host, node.name] == 0:
                    self.listeners.pop(port, None)
                    raise ConnectionRefusedError(f"port {port}: connection refused")
            elif not (self.is_cut(node, there) or self.is_cut(there, node)) and not (
                talks and there.paused
            ):
                connection = Connection(self, node, there, next(self._numbers))
                if talks:
                    self.connections[connection.number] = connection
                    assert accept is not None
                    accept(connection)
                return connection
            if self.loop.time() >= until:
                raise TimeoutError(f"port {port}: connection timed out")
            await asyncio.sleep(CONNECT_S / 20)

    async def _probe(self, host: str, port: int) -> asyncio.Transport:
        await self.dial(port, talks=False)
        return Probe()
