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
LOG_BYTES_MAX = 8 * 1024 * 1024
DOCKER_RUNS_IT = 'images need Managers with the Docker driver (`driver = "docker"`)'


class DriverError(SlotwayError):
    """The engine refused or failed; the message is fit for the user whose request waits."""

    reason = "CREATE_FAILED"


class UnfitError(DriverError):
    """This driver never creates such containers; `what` is "kind", "image" or "capacity"."""

    reason = "INVALID_FIELD"

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


class InitError(SlotwayError):
    """The action's code does not initialise; the message carries the action's own error."""

    reason = "INIT_FAILED"


class EndedLoadingError(InitError):
    """The container ended while its code was loaded: by that code, or killed from outside."""

    def __init__(self, how: str = "") -> None:
        told = "the container ended while its code was loaded"
        super().__init__(f"{told}: {how}" if how else told)


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
    """The runtime, for instance "python:3"; "blackbox": that of `image`."""
    capacity: int
    """C, or the greatest one that its limits have to hold."""
    memory_mib: int
    address: str = ""
    """As recorded: what `Driver.address` gave."""
    ledger: str = ""
    """The id of the count that its address is from; empty where addresses are not numbered."""
    image: str = ""
    """The user's own, with kind "blackbox"."""
    concurrent: bool = False
    """Whether the user insists on a capacity above 1, whatever the runtime declares."""
    network: bool = False
    """Whether it may open connections to other hosts; without isolation it always may."""


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

    async def check(self, kind: str, image: str, capacity: int) -> None:
        """Returns if such containers may be asked for: UnfitError if never, saying what to do;
        DriverError if the engine has to say so, and does not. A capacity of 1 fits every runtime,
        and is answered without the engine: whether an image is there, `create` tells."""

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

    def ending(self, container: ContainerId) -> str:
        """How a container ended whose end was told not long ago, for people, in one line; empty if
        the engine does not say."""

    async def log(self, container: ContainerId) -> bytes:
        """What the container printed last, at most LOG_BYTES_MAX of it; also after its end, for as
        long as the engine keeps it. DriverError if there is none."""

    async def list(self) -> list[ContainerFound]:
        """All containers of this cluster that the engine has, also those of older epochs."""

    def ends(self) -> AsyncIterator[ContainerId]:
        """Containers whose end was proved, each at least once, whoever created them."""
