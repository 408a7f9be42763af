"""The driver interface: the only way in which a Manager touches containers.

A driver acts on one engine. It takes no decision: what is to be created, kept or ended is decided
on the ledger before the driver is asked. All calls can be repeated. A container's end is reported
only when the engine itself says that nothing of it runs any more (DESIGN: the end is proof).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import NewType, Protocol

from slotway.errors import SlotwayError

ContainerId = NewType("ContainerId", str)


class DriverError(SlotwayError):
    """The engine refused or failed; the message is fit for the user whose request waits."""

    reason = "CREATE_FAILED"


class InitError(SlotwayError):
    """The action's code does not initialise; the message carries the action's own error."""

    reason = "INIT_FAILED"


class EndedLoadingError(InitError):
    """The container ended while its code was loaded: by that code, or killed from outside."""

    def __init__(self, ending: str = "") -> None:
        what = "the container ended while its code was loaded"
        super().__init__(f"{what}: {ending}" if ending else what)


@dataclass(frozen=True, slots=True)
class Label:
    """What a container carries with it, so that a later Manager can tell whose it is."""

    cluster: str
    epoch: int
    id: ContainerId
    term: str
    """The term of the leader that had it created, "epoch.revision"."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses that a driver numbers from 1 to `count`; the ledger counts through them, so that
    none is used twice."""

    subnet: str
    count: int


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to be created."""

    label: Label
    kind: str
    """The runtime, for instance "python:3"."""
    capacity: int
    """C, or the greatest one that its limits have to hold."""
    memory_mib: int
    address: str = ""
    """As recorded: what `Driver.address` gave."""
    ledger: str = ""
    """The id of the count that its address is from; empty where addresses are not numbered."""


@dataclass(frozen=True, slots=True)
class ContainerFound:
    """A container that the engine has."""

    label: Label
    running: bool
    address: str


class Driver(Protocol):
    """One engine's containers of one cluster. Used as an async context manager by its Manager."""

    name: str
    """"process", "docker" or "fake"; recorded with every container."""
    numbered: Addresses | None
    """The addresses that have to be counted; None: each is named after its container's id."""

    async def start(self) -> None:
        """Connects to the engine; DriverError if it cannot be used, saying what to do."""

    async def close(self) -> None:
        """Lets go of the engine. Containers live on."""

    def engine(self) -> str:
        """The engine's identity; a container's end may only be told by the engine that made it."""

    def address(self, container: ContainerId, number: int = 0) -> str:
        """Where the container will listen, "unix:/path" or "host:port". `number` counts where
        addresses are numbered: no second container may get it."""

    async def create(self, spec: ContainerSpec) -> None:
        """Creates and starts the container under its id; one that exists by this id is adopted.

        Returns when it accepts connections. DriverError if it could not be created: nothing is left
        of it, or `list` shows it.
        """

    async def init(
        self, container: ContainerId, value: dict[str, object], timeout: timedelta
    ) -> None:
        """`POST /init` with `{"value": value}`. InitError with the action's error; DriverError if
        it ended meanwhile."""

    async def destroy(self, container: ContainerId) -> None:
        """Has the engine end the container, with everything in it; unknown ones are fine. Returns
        at once: the end is told by `ends`."""

    async def has_ended(self, container: ContainerId) -> bool:
        """Whether the engine knows for sure that nothing of the container runs, now and for
        ever."""

    async def list(self) -> list[ContainerFound]:
        """All containers of this cluster that the engine has, also those of older epochs."""

    def ends(self) -> AsyncIterator[ContainerId]:
        """Containers whose end was proved, each at least once, whoever created them."""

    def ending(self, container: ContainerId) -> str:
        """How a container ended whose end was told a moment ago, in words; "" if nobody knows."""
