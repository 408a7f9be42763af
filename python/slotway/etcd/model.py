"""The words of etcd's data model that the rest of the program uses; nothing of its wire.

Keys are text; a key that is not UTF-8 comes with surrogates. Revisions count every change of the
whole store; `mod_revision` 0 in a comparison means that the key is absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Access:
    """Where etcd is and how it is entered. The files are PEM; `ca` alone checks the server."""

    endpoints: tuple[str, ...]
    """`host:port`, `http://host:port` or `https://host:port`, tried in this order."""
    ca: str = ""
    cert: str = ""
    key: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    timeout_s: float = 1.0
    """The deadline of every call, in seconds."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as it stood at a revision."""

    key: str
    value: bytes
    mod_revision: int
    create_revision: int = 0
    version: int = 0
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Compare:
    """One comparison of a transaction, for equality; exactly one of the fields is given."""

    key: str
    mod_revision: int | None = None
    create_revision: int | None = None
    version: int | None = None
    value: bytes | None = None

    def __post_init__(self) -> None:
        given = (self.mod_revision, self.create_revision, self.version, self.value)
        assert sum(one is not None for one in given) == 1, "compare exactly one thing"


@dataclass(frozen=True, slots=True)
class Put:
    """Puts a value; `lease` 0: none."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes a key, or all keys that begin with it."""

    key: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Get:
    """Reads a key, or all keys that begin with it."""

    key: str
    prefix: bool = False


Operation: TypeAlias = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class TxnResult:
    """What became of a transaction."""

    succeeded: bool
    """Which branch ran."""
    revision: int
    """The store's revision after it: that of its own writes, if it wrote."""
    found: tuple[tuple[KeyValue, ...], ...]
    """For each operation of the branch that ran: what it read (nothing for puts and deletes)."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All keys below a prefix at one revision, in the order of their names."""

    revision: int
    items: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """A key was put, or deleted: then the value is empty, and `mod_revision` the deletion's."""

    item: KeyValue
    deleted: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole revisions of events, in their order. No events: progress up to `revision`."""

    revision: int
    events: tuple[Event, ...]


def range_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix`."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"
