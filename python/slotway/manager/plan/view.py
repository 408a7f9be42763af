"""The facts that a plan is made from, and what it decides. Times are seconds of one clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """What a container's state means to the plan."""

    COMING = "coming"
    """It is being created or initialised."""
    READY = "ready"
    """It takes requests, and its slots may be granted."""
    DRAINING = "draining"
    """Its shares are being lowered to nothing."""
    ENDING = "ending"
    """The driver may have been asked to end it."""


@dataclass(frozen=True, slots=True)
class Tempo:
    """How fast things may move."""

    settle_s: float = 0.1
    """A share that was raised is not lowered before this; a lowering is expected to be acknowledged
    within it."""
    ask_s: float = 0.3
    """A router that is asked what idles there is waited for so long."""
    silent_grace_s: float = 30.0
    """A silent router's containers are left alone for so long, even when they are needed."""


@dataclass(slots=True)
class Share:
    """One router's part of one container."""

    slots: int
    """As recorded, with what is staged."""
    target: int
    """As ordered; what `slots` is above it is on its way back."""
    idle: int
    """Of `target`, what is not in use as far as is known; slots that the router's newest report
    has not seen are among it."""
    changed_at: float
    """When `target` changed last."""
    confirmed: bool = True
    """The router has reported that it obeyed the order for `target`."""
    raised_at: float = 0.0
    """When `target` grew last."""


@dataclass(slots=True)
class ContainerView:
    """One container of the action."""

    id: str
    revision: int
    phase: Phase
    capacity: int
    free: int
    """Slots that may be granted at once."""
    shares: dict[str, Share] = field(default_factory=dict)
    unspread: bool = False
    """Its free slots have yet to be spread over the routers: it is new."""


@dataclass(slots=True)
class RouterView:
    """One incarnation of a router that has a session, or a share of the action."""

    id: str
    waiting: int = 0
    """Requests of the action that wait there, as last reported."""
    known: bool = True
    """It has said Hello in this term, so that it can be ordered about."""
    fresh: bool = True
    """Its facts are not too old to act upon."""
    stuck: bool = False
    """It has not confirmed raises that it was sent some periods ago: it gets no more."""
    leaving: bool = False
    """It gives its shares back to leave: it gets no more, and is nobody's peer."""
    restarted: bool = False
    """Its name had another incarnation a short while ago: it gets slots for its demand only."""
    vanished: bool = False
    """Its process is known to be gone; its shares stay until the containers end."""
    behind: bool = False
    """Its newest report may be older than the newest demand of others: more may idle there."""
    silent_since: float | None = None
    """Since when it has not reported; None if it does."""


@dataclass(slots=True)
class ActionView:
    """All that matters for one action."""

    name: str
    revision: int
    """The present revision; 0: the action is deleted."""
    capacity: int
    """C of the present revision."""
    containers: list[ContainerView]
    routers: list[RouterView]
    room: int
    """How many more containers of it the limits may ever admit, evictions included."""
    now: float
    minimum: int = 0
    """Containers of the present revision that are to be there even without demand."""
    asked_at: float | None = None
    """Since when routers are being asked what idles there; None if they are not."""


@dataclass(frozen=True, slots=True)
class Order:
    """A share of a container is to become `target`."""

    container: str
    router: str
    target: int


@dataclass(slots=True)
class Decisions:
    """What is to be done for one action."""

    grants: list[Order] = field(default_factory=list)
    recalls: list[Order] = field(default_factory=list)
    create: int = 0
    """Containers wanted beyond those that come already, for demand or the minimum; at most the
    room."""
    unmet: int = 0
    """Requests for which nothing free, movable, coming or to be created is left."""
    missing: int = 0
    """Containers below the minimum that the room does not allow."""
    drains: list[tuple[str, str]] = field(default_factory=list)
    """(container, reason for people)."""
    destroys: list[tuple[str, str]] = field(default_factory=list)
    """(container, reason): nobody who could be heard of holds a share."""
    spread: list[str] = field(default_factory=list)
    """Containers that are not `unspread` any more."""
    peers: dict[str, list[str]] = field(default_factory=dict)
    """For each known router: the routers that it forwards to."""
    ask: list[str] = field(default_factory=list)
    """Routers that are to report at once: nothing is created before, unless it takes too long."""
    wake_at: float | None = None
    """When to plan anew if nothing happens until then."""
