"""An event loop in virtual time, with all processes of a simulation in it.

Nothing waits: when nothing is ready, the clock jumps to the next timer. There is no I/O and no
thread. Every callback belongs to the process (`Node`) in whose context it was scheduled: what a
paused process has to do is kept until it goes on, what a killed one had to do is dropped, and no
`finally` of its runs: that is what SIGSTOP and SIGKILL do.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, cast

NODE: ContextVar[Node | None] = ContextVar("node", default=None)
"""The process that runs; None: the simulation itself."""
HANDLES_MAX = 3_000_000
"""No simulation needs more; one that does is caught in a circle."""


class Stuck(Exception):  # noqa: N818
    """Nothing is left to be done, or there is no end of it."""


class Node:
    """One process: running, paused or dead."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paused = False
        self.dead = False
        self.backlog: deque[asyncio.Handle] = deque()
        self.context: Context = copy_context()
        self.context.run(NODE.set, self)

    def __repr__(self) -> str:
        state = "dead" if self.dead else "paused" if self.paused else "up"
        return f"<{self.name} {state}>"


class VirtualTask(asyncio.Task[Any]):
    """A task with a hash that does not depend on where it lies in memory: sets of tasks are
    visited in the same order in every run."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. `refuses` answers who listens where (see `Network.connect`)."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1_000.0  # no clock begins at nought
        self._tasks_made = self._timers_made = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self.handled = 0
        self.failures: list[str] = []
        """What nobody caught."""
        self.connect: Callable[[str, int], Coroutine[Any, Any, asyncio.Transport]] | None = None
        self._readers: dict[int, tuple[Callable[[], None], Context]] = {}
        self._raised: set[int] = set()
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        """The virtual clock, in seconds."""
        return self._now

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None = None
    ) -> asyncio.Future[Any]:
        self._tasks_made += 1
        task = VirtualTask.__new__(VirtualTask)
        task.number = self._tasks_made
        task.__init__(coro, loop=loop, context=context)  # type: ignore[misc]
        return task

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if "was destroyed" not in context["message"]:
            self.failures.append(f"{context['message']}: {exc!r}")

    # What the base class asks of a selector's loop.

    def _process_events(self, event_list: object) -> None:
        raise AssertionError("there is no selector")

    def _write_to_self(self) -> None:
        """Nobody sleeps that could be woken."""

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As the base class's; timers of one instant go off in the order of their making."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, timer))
        return timer

    def _run_once(self) -> None:
        ready = cast("deque[asyncio.Handle]", self._ready)  # type: ignore[attr-defined]
        timers = self._timers
        if not ready:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise Stuck("nothing is left to be done")
            self._now = now = max(self._now, timers[0][0])
            while timers and timers[0][0] <= now:
                ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            context = handle._context  # type: ignore[attr-defined]
            node = context.get(NODE)
            if node is not None and (node.paused or node.dead):
                if not node.dead:
                    node.backlog.append(handle)
                continue
            self.handled += 1
            handle._run()
        if self.handled > HANDLES_MAX:
            raise Stuck(f"{self.handled} callbacks")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time comes."""

    # Processes.

    def resume(self, node: Node) -> None:
        """What the process had to do meanwhile is done now, in its order."""
        node.paused = False
        self._ready.extend(node.backlog)  # type: ignore[attr-defined]
        node.backlog.clear()

    def spawn(self, node: Node, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Runs the coroutine as a task of the process."""
        context = node.context.copy()
        return self.create_task(work, name=name, context=context)

    # Descriptors: a number, and whether it is readable.

    def add_reader(  # type: ignore[override]
        self, fd: Any, callback: Callable[..., Any], *args: Any
    ) -> None:
        """For the data plane's `fileno`."""
        self._readers[fd] = (callback, copy_context())
        if fd in self._raised:
            self.call_soon(self._read, fd, context=self._readers[fd][1])

    def remove_reader(self, fd: Any) -> bool:
        """See `add_reader`."""
        return self._readers.pop(fd, None) is not None

    def raise_fd(self, fd: int) -> None:
        """The descriptor is readable until `clear_fd`."""
        if fd not in self._raised:
            self._raised.add(fd)
            reader = self._readers.get(fd)
            if reader is not None:
                self.call_soon(self._read, fd, context=reader[1])

    def clear_fd(self, fd: int) -> None:
        """See `raise_fd`."""
        self._raised.discard(fd)

    def _read(self, fd: int) -> None:
        reader = self._readers.get(fd)
        if reader is not None and fd in self._raised:
            reader[0]()

    # Connections that are only to be opened: `asyncio.open_connection` of a probe.

    async def create_connection(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **_: Any
    ) -> tuple[asyncio.Transport, Any]:
        """See `Network.connect`."""
        assert self.connect is not None
        transport = await self.connect(host, port)
        protocol = protocol_factory()
        protocol.connection_made(transport)
        return transport, protocol

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs the simulation's own coroutine to its end."""
        asyncio.set_event_loop(self)
        return self.run_until_complete(work)

    def abandon(self) -> None:
        """Forgets everything that was to be done."""
        self.set_exception_handler(lambda loop, context: None)
        self._ready.clear()  # type: ignore[attr-defined]
        self._timers.clear()
        self._readers.clear()
        self.connect = None
        asyncio.set_event_loop(None)
        self.close()
