"""Nothing that the store acknowledged is lost: to SIGKILL, a full disk, a crash of the server.

The witness is what a worker process printed after each acknowledgement.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from slotway.activations import State, Store, StoreFullError, StoreUnavailableError, Submission
from slotway.activations.bell import Bell

from .postgres import PostgresServer
from .store_worker import BATCH, PAYLOAD

ROOT = Path(__file__).parents[2]
NOW = 1_000_000


@contextmanager
def worker(*arguments: str, within: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    command = [*within, sys.executable, "-m", "tests.contract.store_worker", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def acknowledged(lines: list[str]) -> tuple[int, set[str]]:
    """How many were submitted (they count up), and which are done."""
    told = [line.split() for line in lines if line.endswith("\n")]
    submitted = [int(words[2].rpartition("-")[2]) for words in told if words[0] == "submitted"]
    done = {id for words in told if words[0] == "done" for id in words[1:]}
    return max(submitted, default=-1) + 1, done


def check(store: Store, name: str, lines: list[str]) -> int:
    """All that was acknowledged is there, no batch is there in part; returns how many."""
    submitted, done = acknowledged(lines)
    stored = {}
    before = None
    while page := store.newest("ns", action=f"ns/{name}", before=before, limit=1_000):
        stored.update({one.id: one for one in page})
        before = page[-1].id
    assert len(stored) % BATCH == 0
    # One batch more may have been committed when its answer was lost.
    assert set(stored) == {f"{name}-{number:08}" for number in range(len(stored))}
    assert submitted <= len(stored) <= submitted + BATCH
    recorded = {id for id, one in stored.items() if one.state is State.DONE}
    assert done <= recorded
    assert len(recorded - done) in (0, BATCH // 2)
    assert all(stored[id].outcome is not None for id in recorded)
    return submitted


@pytest.mark.slow
def test_a_killed_process_loses_nothing_that_it_acknowledged(store: Store, store_url: str) -> None:
    # Two at once: one is killed while the other goes on.
    for round in range(2):
        names = [f"w{round}", f"v{round}"]
        with worker(store_url, names[0]) as first, worker(store_url, names[1]) as second:
            assert first.stdout is not None
            assert second.stdout is not None
            told = [first.stdout.readline() for _ in range(3 + 20 * round)]
            first.send_signal(signal.SIGKILL)
            told += first.stdout.readlines()
            goes_on = [second.stdout.readline() for _ in range(5)]
            second.send_signal(signal.SIGKILL)
            goes_on += second.stdout.readlines()
        assert check(store, names[0], told) > 0
        assert check(store, names[1], goes_on) > 0


@pytest.mark.slow
def test_files_that_may_not_grow_refuse_and_never_acknowledge(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'activations.db'}"
    store = Store(url)
    with worker(url, "w", "300000") as process:
        told, _ = process.communicate(timeout=60)
    lines = told.splitlines(keepends=True)
    assert lines[-1].startswith("refused STORE_"), lines[-3:]
    assert check(store, "w", lines) > 0
    store.submit([Submission("after", "ns/after", b"{}")], NOW)
    store.close()


@contextmanager
def small_disk(folder: Path, size: str, then: str = "true") -> Iterator[tuple[str, ...]]:
    """A command to run another with, which sees a disk of that size at the folder."""
    folder.mkdir()
    unshare = ("unshare", "-m") if os.getuid() == 0 else ("unshare", "-rm")
    script = f"mount -t tmpfs -o size={size},mode=755 none '{folder}' && {then} && exec \"$@\""
    command = (*unshare, "sh", "-c", script, "sh")
    if subprocess.run([*command, "true"], check=False).returncode != 0:
        pytest.skip("this kernel does not let us mount a small disk")
    yield command


@pytest.mark.slow
def test_a_full_disk_under_sqlite_refuses_and_never_acknowledges(tmp_path: Path) -> None:
    disk, safe = tmp_path / "small", tmp_path / "safe"
    safe.mkdir()
    # What is on the disk is copied when the worker has ended: the disk goes with it.
    copy = f"cp '{disk}'/activations.db* '{safe}'"
    with small_disk(disk, "1m") as within:
        command = (*within, "sh", "-c", f'"$@"; {copy}', "sh")
        with worker(f"sqlite:///{disk / 'activations.db'}", "w", within=command) as process:
            told, _ = process.communicate(timeout=60)
    lines = told.splitlines(keepends=True)
    assert lines[-1].startswith("refused STORE_FULL"), lines[-3:]
    assert "disk space" in lines[-1]
    store = Store(f"sqlite:///{safe / 'activations.db'}")
    assert check(store, "w", lines) > 0
    store.close()


@pytest.mark.slow
def test_a_full_disk_under_postgresql_refuses_and_never_acknowledges(
    own_postgres: PostgresServer,
) -> None:
    server = own_postgres
    server.stop()  # it starts again where the small disk is seen
    disk = server.folder / "small"
    own = f"install -d -m 700 {server.owner()} '{disk}/space'"
    with small_disk(disk, "8m", own) as within:
        server.within = within
        server.start()
        server.psql(f"CREATE TABLESPACE small LOCATION '{disk}/space'")
        server.psql("ALTER ROLE slotway SET default_tablespace = small")
        server.psql("CREATE TABLE filler AS SELECT repeat('x', 900) FROM generate_series(1, 2000)")
        store = Store(server.url())
        with worker(server.url(), "w") as process:
            told, _ = process.communicate(timeout=60)
        lines = told.splitlines(keepends=True)
        assert lines[-1].startswith("refused STORE_FULL"), lines[-3:]
        assert check(store, "w", lines) > 0
        with pytest.raises(StoreFullError, match="disk space"):
            submit_for_ever(store)
        server.psql("DROP TABLE filler; CHECKPOINT")
        store.submit([Submission(f"y{n}", "ns/y", PAYLOAD) for n in range(BATCH)], NOW)
        assert len(store.newest("ns", action="ns/y")) == BATCH
        store.close()


@pytest.mark.slow
def test_a_restart_of_postgresql_loses_nothing_and_the_store_goes_on(
    own_postgres: PostgresServer,
) -> None:
    store = Store(own_postgres.url())
    submitted: list[str] = []
    refused: list[StoreUnavailableError] = []
    ends = threading.Event()

    def submit(number: int) -> None:
        turn = 0
        while not ends.is_set():
            turn += 1
            batch = [Submission(f"{number}-{turn:06}-{n}", "ns/a", b"{}") for n in range(8)]
            try:
                submitted.extend(store.submit(batch, NOW))
            except StoreUnavailableError as error:
                refused.append(error)
                ends.wait(0.02)

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for how in (signal.SIGKILL, signal.SIGINT):
            bell = store.bell()
            grows(submitted, 200)
            own_postgres.stop(how)
            grows(refused, 5)
            with pytest.raises(StoreUnavailableError):
                listen_for_ever(bell)
            bell.close()
            own_postgres.start()
            grows(submitted, 200)
    finally:
        ends.set()
        for thread in threads:
            thread.join(30)
    with closing(store.bell()) as another:
        store.submit([Submission("z", "ns/a", b"{}")], NOW)
        assert another.wait(10)
    stored = set(own_postgres.psql("SELECT id FROM activation").splitlines())
    assert set(submitted) <= stored
    # Beyond them, at most what each thread had sent when the server went, twice.
    assert len(stored - set(submitted)) <= 2 * 8 * len(threads) + 1
    store.close()


def submit_for_ever(store: Store) -> None:
    for turn in itertools.count():
        ids = (f"x{turn}-{number}" for number in range(BATCH))
        store.submit([Submission(id, "ns/x", PAYLOAD) for id in ids], NOW)


def listen_for_ever(bell: Bell) -> None:
    while True:
        bell.wait(10)


def grows(told: Sequence[object], by: int) -> None:
    """Waits until there is so much more of it."""
    wanted, deadline = len(told) + by, time.monotonic() + 60
    while len(told) < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.005)
