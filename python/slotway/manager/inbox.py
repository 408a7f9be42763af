"""What happens to a Manager. Only the loop acts on it, a turn at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from slotway.drivers.base import ContainerFound
from slotway.errors import SlotwayError
from slotway.v1 import ledger_pb2, manager_pb2

if TYPE_CHECKING:
    from slotway.manager.sessions import Session


@dataclass(frozen=True, slots=True)
class Opened:
    """A router opened a stream."""

    session: Session


@dataclass(frozen=True, slots=True)
class Closed:
    """A router's stream is over."""

    session: Session


@dataclass(frozen=True, slots=True)
class Reported:
    """A router said something on its stream."""

    session: Session
    message: manager_pb2.AttachRequest


@dataclass(frozen=True, slots=True)
class Started:
    """The driver has created a container (`state` CREATING) or initialised it (INITIALISING); or
    it could not, because of `error`."""

    container: str
    state: ledger_pb2.ContainerState.ValueType
    error: SlotwayError | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The engine has proved the end of a container."""

    container: str


@dataclass(frozen=True, slots=True)
class Listed:
    """The engine's containers; `ended` are recorded ones that it says have ended."""

    found: list[ContainerFound]
    ended: list[str]


@dataclass(frozen=True, slots=True)
class Probed:
    """A router without a stream was probed; `gone`: its address refuses connections."""

    router: str
    gone: bool


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """An action is to be put, or deleted if `record` is None. `done` gets the record as it stands
    afterwards, or a SlotwayError."""

    name: str
    record: ledger_pb2.ActionRecord | None
    expected_revision: int | None
    done: asyncio.Future[ledger_pb2.ActionRecord] = field(repr=False)


Happening: TypeAlias = Opened | Closed | Reported | Started | Ended | Listed | Probed | Write


class Inbox:
    """The queue between everything that waits on the outside, and the loop.

    Its senders bound it: a stream has a few unread messages at most, a container one task, and
    action writes are admitted by their service.
    """

    def __init__(self) -> None:
        self._queue: deque[Happening] = deque()
        self._filled = asyncio.Event()

    def put(self, happening: Happening) -> None:
        """Never waits."""
        self._queue.append(happening)
        self._filled.set()

    async def take(self, until: float | None = None) -> list[Happening]:
        """All that has happened, in order; nothing if the loop's time `until` comes first."""
        if not self._queue:
            try:
                async with asyncio.timeout_at(until):
                    await self._filled.wait()
            except TimeoutError:
                return []
        taken = list(self._queue)
        self._queue.clear()
        self._filled.clear()
        return taken
