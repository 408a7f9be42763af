"""One container as the leader knows it: what is recorded, and what only matters while it leads."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from slotway.manager.plan import Phase
from slotway.records import encode
from slotway.v1 import ledger_pb2
from slotway.v1.ledger_pb2 import (
    CONTAINER_STATE_CREATING,
    CONTAINER_STATE_DESTROYING,
    CONTAINER_STATE_DRAINING,
    CONTAINER_STATE_INITIALISING,
    CONTAINER_STATE_PREWARMED,
    CONTAINER_STATE_READY,
)

TRANSITIONS: Final[dict[int, set[int]]] = {
    CONTAINER_STATE_CREATING: {
        CONTAINER_STATE_PREWARMED,
        CONTAINER_STATE_INITIALISING,
        CONTAINER_STATE_DESTROYING,
    },
    CONTAINER_STATE_PREWARMED: {CONTAINER_STATE_INITIALISING, CONTAINER_STATE_DESTROYING},
    CONTAINER_STATE_INITIALISING: {CONTAINER_STATE_READY, CONTAINER_STATE_DESTROYING},
    CONTAINER_STATE_READY: {CONTAINER_STATE_DRAINING, CONTAINER_STATE_DESTROYING},
    CONTAINER_STATE_DRAINING: {CONTAINER_STATE_DESTROYING},
    CONTAINER_STATE_DESTROYING: set(),
}
"""From each state, those that may follow. The end of the container deletes the record of any."""

_PHASES: Final = {
    CONTAINER_STATE_CREATING: Phase.COMING,
    CONTAINER_STATE_PREWARMED: Phase.COMING,
    CONTAINER_STATE_INITIALISING: Phase.COMING,
    CONTAINER_STATE_READY: Phase.READY,
    CONTAINER_STATE_DRAINING: Phase.DRAINING,
    CONTAINER_STATE_DESTROYING: Phase.ENDING,
}


REFUSED_S = 10.0
"""A container that runs, and refuses connections for so long, is replaced."""
REFUSED_PAUSE_S = 5.0
"""Refused connections further apart are not of one spell; routers try every other second."""


@dataclass(slots=True, eq=False)
class Container:
    """`record` is what the next commit writes, but for the shares: those are the ledger's."""

    record: ledger_pb2.ContainerRecord
    since: float
    """When it came into its state, as far as this leader knows; the loop's seconds."""
    mod_revision: int = 0
    """Of its key; 0: not written yet."""
    unspread: bool = False
    """Its slots have not been spread over the routers yet."""
    idle_since: float | None = None
    """Since when nobody has held a share; None while somebody does."""
    retire_at: float | None = None
    """When it is to be drained because of overruns, or because it takes no connections."""
    refused_since: float = 0.0
    """When it began to refuse connections, if it still does."""
    refused_at: float = -REFUSED_PAUSE_S
    """When a router last said so."""
    begun: bool = False
    """The driver has been asked to create it, by this leader."""
    done: int = 0
    """The newest state whose work the driver has done."""
    failed: bool = False
    """It will not come to serve."""
    why: str = ""
    """Why it failed."""
    ready_at: float | None = None
    """When it came to serve; None: not yet, or under another leader."""
    ended: bool = False
    """The engine has proved its end; its record is to be deleted."""
    task: asyncio.Task[None] | None = None
    """Does what its state asks of the driver."""
    task_state: int = 0
    """The state that `task` serves."""
    changed_at: dict[str, float] = field(default_factory=dict)
    """Per router: when its target changed last."""
    raised_at: dict[str, float] = field(default_factory=dict)
    """Per router: when its target grew last."""

    @property
    def id(self) -> str:
        """Never reused."""
        return self.record.id

    @property
    def is_cell(self) -> bool:
        """A stem cell: nobody's yet."""
        return not self.record.action

    @property
    def state(self) -> ledger_pb2.ContainerState.ValueType:
        """Where it is in its life."""
        return self.record.state

    @property
    def phase(self) -> Phase:
        """What the state means to the plan."""
        return Phase.ENDING if self.ended else _PHASES[self.record.state]

    def enter(
        self, state: ledger_pb2.ContainerState.ValueType, now: float, reason: str = ""
    ) -> None:
        """Changes the state; asserts that it may follow."""
        assert state in TRANSITIONS[self.record.state], (self.id, self.record.state, state)
        self.record.state = state
        self.since = now
        if state == CONTAINER_STATE_READY:
            self.ready_at = now
        if reason:
            self.record.reason = reason

    def refuses(self, now: float) -> bool:
        """A router's connection was refused; whether that has gone on for too long."""
        if now - self.refused_at > REFUSED_PAUSE_S:
            self.refused_since = now
        self.refused_at = now
        return now - self.refused_since >= REFUSED_S

    def value(self, shares: dict[str, int]) -> bytes:
        """The record to be written."""
        whole = ledger_pb2.ContainerRecord()
        whole.CopyFrom(self.record)
        whole.shares.clear()
        whole.shares.update(shares)
        return encode(whole)
