"""The lock file's states, one after the other and out of order (`slotway.drivers.lock`)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from slotway.drivers import lock, procfs
from slotway.drivers.base import ContainerId, Label
from slotway.drivers.guard import Guard
from slotway.drivers.lock import Record, State

LABEL = Label("c", 1, ContainerId("one"), "1.7")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.lock"


def record() -> Record:
    pid = os.getpid()
    boot = procfs.boot_id()
    return Record(LABEL, pid, procfs.start_time(pid), boot, procfs.new_mark())


@contextmanager
def taken(path: Path, record: Record) -> Iterator[int]:
    fd = lock.take(path, record)
    try:
        yield fd
    finally:
        os.close(fd)


def test_the_life_of_a_container(path: Path) -> None:
    assert lock.look(path).state is State.ABSENT
    own = record()
    with taken(path, own) as fd:
        assert lock.look(path) == lock.Sight(State.RUNNING, own)
        assert lock.look(path, claim=True).state is State.RUNNING
        lock.bury(path)
        lock.sweep(path)
        assert lock.look(path).record == own
        lock.end(fd, "exit code 0")
        assert lock.look(path).state is State.RUNNING, "the supervisor still lives"
    assert lock.look(path) == lock.Sight(State.ENDED, own, "exit code 0")
    lock.sweep(path)
    assert lock.look(path).record == own, "nobody was told yet"
    lock.bury(path)
    assert lock.look(path) == lock.Sight(State.ENDED, None, "and told")
    lock.sweep(path)
    assert not path.exists()


def test_a_claimed_id_cannot_be_taken(path: Path) -> None:
    assert lock.look(path, claim=True).state is State.ENDED
    with pytest.raises(FileExistsError):
        lock.take(path, record())
    assert lock.look(path).state is State.ENDED


def test_an_id_is_taken_once(path: Path) -> None:
    with taken(path, record()), pytest.raises(FileExistsError):
        lock.take(path, record())
    with pytest.raises(FileExistsError):
        lock.take(path, record())


def test_a_file_between_its_making_and_its_lock(path: Path) -> None:
    """To look does no harm to a creation; to claim decides against it."""
    path.touch()
    assert lock.look(path).state is State.STARTING
    assert path.stat().st_size == 0
    assert lock.look(path, claim=True).state is State.ENDED
    assert path.stat().st_size > 0


def test_a_file_locked_before_its_record(path: Path) -> None:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert lock.look(path, claim=True).state is State.STARTING


def test_a_killed_supervisor_is_no_end_yet(path: Path) -> None:
    own = record()
    with taken(path, own):
        pass
    assert lock.look(path).state is State.UNCLEAN
    assert lock.look(path, claim=True).state is State.UNCLEAN
    lock.bury(path)
    lock.sweep(path)
    assert lock.clean(path).state is State.ENDED
    assert lock.look(path).ending == "its supervisor was killed"


def test_cleaning_leaves_the_living_alone(path: Path) -> None:
    with taken(path, record()):
        assert lock.clean(path).state is State.RUNNING


def test_what_cannot_be_killed_has_not_ended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with taken(path, record()):
        pass
    monkeypatch.setattr(lock, "purge", lambda mark, timeout_s: False)
    assert lock.clean(path).state is State.UNCLEAN
    assert lock.look(path).state is State.UNCLEAN


def test_nothing_outlives_its_boot(path: Path) -> None:
    with taken(path, replace(record(), boot="before")):
        pass
    assert lock.look(path).ending == "when its machine was started anew"


def test_an_unknown_schema_is_not_judged(path: Path) -> None:
    with taken(path, replace(record(), schema=2)):
        pass
    with pytest.raises(ValueError, match="schema 2"):
        lock.look(path)


async def test_the_guard_is_had_alone_by_one(tmp_path: Path) -> None:
    first, second = Guard(tmp_path / "guard"), Guard(tmp_path / "guard")
    with closing(first), closing(second):
        await first.hold()
        with first.alone() as alone:
            assert alone
        await second.hold()
        for one, other in (first, second), (second, first):
            with one.alone() as alone:
                assert not alone
            # To have asked costs nothing: the other still cannot have it.
            with other.alone() as alone:
                assert not alone
    third = Guard(tmp_path / "guard")
    with closing(third), third.alone() as alone:
        assert alone
