"""What the Router's Python side needs of the data plane: `slotway._slotcore.DataPlane`, or a
double of it in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Term = tuple[int, int]
Version = tuple[int, int, int]
Ended = tuple[str, int, int, bytes | None, str, str]
"""An attempt: id, token, start in ms since 1970, answer or None, reason, message."""


class Happened(Protocol):
    """What happened since the last look."""

    @property
    def acknowledgements(self) -> list[tuple[str, int, Version]]:
        """(container, holding, version), due to every Manager."""

    @property
    def demand_rose(self) -> bool:
        """Some action's demand left zero."""

    @property
    def demand_changed(self) -> bool:
        """Some action's demand or idle slots changed."""

    @property
    def troubles(self) -> list[tuple[str, str, int]]:
        """(container, "overrun" | "refused", slots)."""


class Plane(Protocol):
    """The part of the data plane that the sessions use; see `_slotcore.pyi` for what each method
    does."""

    @property
    def obeyed(self) -> Version | None: ...

    def fileno(self) -> int: ...

    def open_stream(self, manager: str, stream: int) -> None: ...

    def close_stream(self, manager: str, stream: int) -> None: ...

    def welcome(
        self, manager: str, stream: int, term: Term
    ) -> list[tuple[str, int, int]] | None: ...

    def order(
        self,
        manager: str,
        stream: int,
        version: Version,
        container: str,
        target: int,
        action: str,
        revision: int,
        address: str,
        capacity: int,
        timeout_ms: int,
        parameters: bytes,
    ) -> bool: ...

    def ended(
        self, manager: str, stream: int, term: Term, container: str, how: str = ""
    ) -> bool: ...

    def peers(self, action: str, peers: Sequence[tuple[str, str, int]]) -> None: ...

    def drop_peers(self) -> None: ...

    def refuse(self, action: str, reason: str, message: str, retry_ms: int) -> None: ...

    def give_back(self, idle_ms: int) -> None: ...

    def events(self) -> Happened: ...

    def demand(self) -> list[tuple[str, int, list[tuple[str, int]]]]: ...

    def holdings(self) -> list[tuple[str, str, int, int]]: ...


class LanePlane(Protocol):
    """The part that the async lane uses; see `_slotcore.pyi`."""

    def open_submissions(self, is_open: bool) -> None: ...

    def take_submissions(
        self, max: int, patience_ms: int
    ) -> list[tuple[str, str, bytes, str | None]] | None: ...

    def acknowledge(self, ids: list[str]) -> None: ...

    def refuse_submissions(self, reason: str, message: str, retry_ms: int) -> None: ...

    def want(self, action: str, count: int, is_urgent: bool) -> None: ...

    def wait_for_lane(
        self, patience_ms: int
    ) -> tuple[list[tuple[str, int, int]], list[Ended], list[tuple[str, str, str]]]: ...

    def run(self, attempts: Sequence[tuple[str, int, str, bytes]]) -> list[str]: ...

    def ring(self) -> None: ...
