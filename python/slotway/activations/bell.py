"""Tells a dispatcher that something was queued, so that it need not look for it again and again.

A bell that was opened before a look rings for everything that was queued after the look. It may
ring for nothing. What becomes due later (a back-off that ends) rings no bell.

PostgreSQL notifies (LISTEN, NOTIFY). SQLite cannot: there the counter of other connections' commits
is read every few milliseconds, which touches shared memory and no file.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any, Protocol

from slotway.activations.database import Database

if TYPE_CHECKING:  # only the extra `postgresql` brings it
    import psycopg

QUEUED_CHANNEL = "slotway_queued"
_POLL_S = 0.02


class Bell(Protocol):
    """One listener; for one thread at a time."""

    def wait(self, timeout_s: float) -> bool:
        """Blocks until it rings, or for so long; whether it rang. StoreUnavailableError; after
        one, open another bell."""

    def close(self) -> None:
        """Ends it."""


def open_bell(database: Database) -> Bell:
    """See `Store.bell`."""
    with database.errors():
        pooled = database.engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        return _Polled(connection) if database.is_sqlite else _Notified(database, connection)


class _Polled:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._seen = self._version()

    def wait(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while (version := self._version()) == self._seen:
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(_POLL_S, left))
        self._seen = version
        return True

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        self._connection.close()


class _Notified:
    def __init__(self, database: Database, connection: psycopg.Connection) -> None:
        self._database = database
        self._connection = connection
        connection.autocommit = True
        connection.execute(f"LISTEN {QUEUED_CHANNEL}")

    def wait(self, timeout_s: float) -> bool:
        with self._database.errors():
            return any(True for _ in self._connection.notifies(timeout=timeout_s, stop_after=1))

    def close(self) -> None:
        self._connection.close()
