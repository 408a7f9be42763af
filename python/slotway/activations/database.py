"""A database that keeps what it has committed: SQLite or PostgreSQL, opened so that a commit is on
disk when it returns, and checked that it is so.

Errors of drivers end here: what a caller sees is a `StoreUnavailableError` or, as a kind of it, a
`StoreFullError`. Either way the transaction counts as not committed. One whose commit was not
answered may be there all the same.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from slotway.errors import SlotwayError

BUSY_TIMEOUT_S = 10.0
"""How long a write waits for other processes' writes."""
BUSY_PAUSE_S = 0.01
CONNECT_TIMEOUT_S = 5
POSTGRESQL_OPTIONS = {
    "application_name": "slotway",
    "connect_timeout": CONNECT_TIMEOUT_S,
    "tcp_user_timeout": 10_000,
    "options": "-c statement_timeout=30s -c lock_timeout=10s"
    " -c idle_in_transaction_session_timeout=60s -c default_transaction_isolation=read\\ committed",
}
_CONNECTIONS_MAX = 4
_SQLITE_CACHE_KIB = 32 * 1024
_DURABLE = ("on", "remote_write", "remote_apply")
_DISK_FULL = "53100"  # an SQLSTATE
_READS = "slotway_reads"


class StoreUnavailableError(SlotwayError):
    """The store did not answer, or could not do it; nothing was acknowledged."""

    reason = "STORE_UNAVAILABLE"


class StoreFullError(StoreUnavailableError):
    """The disk of the store is full, or nearly."""

    reason = "STORE_FULL"


class Database:
    """An opened database; its methods block, and may be called by several threads."""

    def __init__(self, url: str) -> None:
        """Connects. SlotwayError if the URL is bad or the database would not keep what it
        commits; StoreUnavailableError if it cannot be reached."""
        parsed = _parse(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        # Threads of a process take turns by this lock; processes by SQLite's, which polls.
        self._turn: AbstractContextManager[Any] = (
            threading.Lock() if self.is_sqlite else nullcontext()
        )
        self.engine = _sqlite(parsed) if self.is_sqlite else _postgresql(parsed)
        self._driver_error = self.engine.dialect.loaded_dbapi.Error
        self.name = parsed.render_as_string(hide_password=True)
        try:
            with self.reads():
                pass
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes all connections that are not in use."""
        self.engine.dispose()

    @contextmanager
    def writes(self) -> Iterator[sa.Connection]:
        """A transaction that is on disk when the block has ended."""
        with self.errors(), self._turn, self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reads(self) -> Iterator[sa.Connection]:
        """A transaction that changes nothing and waits for no writer."""
        with self.errors(), self.engine.connect() as connection:
            reader = connection.execution_options(**{_READS: True})
            with reader.begin():
                yield reader

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translates what goes wrong inside."""
        try:
            yield
        except DBAPIError as error:
            raise _translated(self.name, error.orig or error) from error
        except (PoolTimeoutError, self._driver_error) as error:
            raise _translated(self.name, error) from error


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except ArgumentError as error:
        raise SlotwayError(_urls(url)) from error
    if parsed.drivername == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    raise SlotwayError(_urls(parsed.render_as_string()))


def _urls(url: str) -> str:
    return (
        f"the store's URL is {url!r}: it should be sqlite:////absolute/path/of/a/file or "
        "postgresql://user@host/database"
    )


def _sqlite(url: sa.URL) -> sa.Engine:
    path = Path(url.database or "")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise SlotwayError(f"the store {path} cannot be opened: {error.strerror}") from error
    engine = sa.create_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        pool_size=_CONNECTIONS_MAX,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_S,
    )

    @sa.event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        mode = _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        level = connection.execute("PRAGMA synchronous").fetchone()[0]
        if (mode, level) != ("wal", 2):
            raise SlotwayError(f"SQLite cannot keep a write-ahead log at {path}: use a local disk")
        connection.execute(f"PRAGMA cache_size = -{_SQLITE_CACHE_KIB}")

    @sa.event.listens_for(engine, "begin")
    def began(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get(_READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> str:
    """Turns the log on; returns the mode. SQLite's own time-out does not cover this, while another
    process does the same to a new file."""
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(BUSY_PAUSE_S)


def _postgresql(url: sa.URL) -> sa.Engine:
    try:
        engine = sa.create_engine(
            url,
            connect_args=POSTGRESQL_OPTIONS,
            pool_size=_CONNECTIONS_MAX,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_S,
            pool_pre_ping=True,
        )
    except ImportError as error:
        what = "PostgreSQL needs psycopg: pip install 'slotway[postgresql]'"
        raise SlotwayError(what) from error

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, record: object) -> None:
        with connection.cursor() as cursor:
            names = ("synchronous_commit", "fsync", "full_page_writes")
            settings = {}
            for name in names:
                settings[name] = cursor.execute(f"SHOW {name}").fetchone()[0]
        connection.rollback()
        bad = [name for name in names[1:] if settings[name] != "on"]
        if settings["synchronous_commit"] not in _DURABLE:
            bad.append("synchronous_commit")
        if bad:
            found = ", ".join(f"{name} = {settings[name]}" for name in bad)
            raise SlotwayError(
                f"this PostgreSQL may lose what it has committed: {found}; set it to on for the "
                "server, or for Slotway's role and database (ALTER ROLE … SET …)"
            )

    return engine


def _translated(name: str, error: BaseException) -> StoreUnavailableError:
    is_full = (
        getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        or getattr(error, "sqlstate", None) == _DISK_FULL
    )
    kind = StoreFullError if is_full else StoreUnavailableError
    what = " ".join(str(error).split()) or type(error).__name__
    delay = timedelta(seconds=5 if is_full else 1)
    advice = "; free or add disk space" if is_full else ""
    return kind(f"the store {name} failed: {what}{advice}", retry_delay=delay)
