"""The lock file of a container: `<id>.lock`, the proof of its life and of its end.

Its supervisor creates the file exclusively and holds an exclusive `flock` on it for as long as
anything of the container runs. While it does, the file says whose container it is. When nothing
runs any more, the supervisor adds a line and exits: a lock that can be had, on a file with that
line, proves the end. A supervisor that was killed leaves no such line; who takes its lock first
kills whatever carries the container's mark, and then writes the line himself.

    absent ──create──▶ empty, locked ──▶ record, locked ──▶ record, "ended" ──bury──▶ "ended"
       └───────────────────────────── claim ───────────────────────────────────────────▲

An "ended" line alone is a tombstone: it keeps a creation that comes late, from a Manager that
slept, from using the id again. `sweep` removes it, under its lock, when nobody else could still
have such a creation under way.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from slotway.drivers.base import ContainerId, Label
from slotway.drivers.procfs import boot_id, purge

SCHEMA = 1
RECORD_BYTES_MAX = 16 * 1024
PURGE_TIMEOUT_S = 2.0


class State(StrEnum):
    """What a lock file tells."""

    ABSENT = "absent"
    STARTING = "starting"
    """Locked, and the record is yet to be written."""
    RUNNING = "running"
    UNCLEAN = "unclean"
    """The supervisor was killed: parts of the container may run."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Record:
    """What a supervisor writes about itself and its container."""

    label: Label
    pid: int
    start: int
    """The supervisor's start time, in clock ticks since boot."""
    boot: str
    mark: int
    schema: int = SCHEMA

    def to_line(self) -> bytes:
        """The record as one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Sight:
    """A lock file as it was found."""

    state: State
    record: Record | None = None
    """None too if the container is a tombstone."""
    ending: str = ""


def take(path: Path, record: Record) -> int:
    """Creates the lock file and takes its lock: the descriptor, to be kept open. FileExistsError if
    the id was used."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    # Somebody who looks may hold the lock for a moment, and may have claimed the id in that moment.
    fcntl.flock(fd, fcntl.LOCK_EX)
    status = os.fstat(fd)
    if status.st_size or not status.st_nlink:
        os.close(fd)
        raise FileExistsError(path)
    _write(fd, record.to_line())
    return fd


def end(fd: int, ending: str) -> None:
    """Says, under the lock, that nothing runs any more."""
    _write(fd, f"ended {ending}\n".encode())


def look(path: Path, *, claim: bool = False) -> Sight:
    """The state of a container. Never blocks. With `claim`, an id that was never used is used up,
    for good."""
    with _open(path, os.O_CREAT if claim else 0) as fd:
        if fd is None:
            return Sight(State.ABSENT)
        if not _lock(fd):
            record, _ = _read(fd)
            return Sight(State.RUNNING if record else State.STARTING, record)
        if not os.fstat(fd).st_nlink:
            return Sight(State.ABSENT)
        record, ending = _read(fd)
        if record is None and ending is None:
            # Its creator is about to lock it, or has died. If it comes too late now, it will see
            # so.
            if not claim:
                return Sight(State.STARTING)
            ending = "before it began"
            end(fd, ending)
        elif ending is None and record is not None and record.boot != boot_id():
            ending = "when its machine was started anew"
            end(fd, ending)
        return Sight(State.UNCLEAN if ending is None else State.ENDED, record, ending or "")


def clean(path: Path) -> Sight:
    """Ends what a killed supervisor left behind. Blocks for up to PURGE_TIMEOUT_S; then it is still
    UNCLEAN."""
    with _open(path) as fd:
        if fd is None or not _lock(fd):
            return look(path)
        record, ending = _read(fd)
        if record is None or ending is not None:
            return Sight(State.ENDED, record, ending or "")
        if not purge(record.mark, PURGE_TIMEOUT_S):
            return Sight(State.UNCLEAN, record)
        ending = "its supervisor was killed"
        end(fd, ending)
        return Sight(State.ENDED, record, ending)


def bury(path: Path) -> None:
    """Makes the file of an ended container a tombstone: nobody has to be told any more."""
    with _open(path) as fd:
        if fd is not None and _lock(fd) and _read(fd)[1] is not None:
            os.ftruncate(fd, 0)
            end(fd, "and told")


def sweep(path: Path) -> None:
    """Removes a tombstone. Only for who knows that no creation of this id can be under way."""
    with _open(path) as fd:
        if fd is None or not _lock(fd) or not os.fstat(fd).st_nlink:
            return
        record, ending = _read(fd)
        if record is None and ending is not None:
            path.unlink()


@contextlib.contextmanager
def _open(path: Path, flags: int = 0) -> Iterator[int | None]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    except FileNotFoundError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int) -> tuple[Record | None, str | None]:
    """The record, and how the container ended. ValueError if the file holds something else."""
    record = ending = None
    for line in os.pread(fd, RECORD_BYTES_MAX, 0).decode().splitlines():
        if line.startswith("ended "):
            ending = line.removeprefix("ended ")
        else:
            fields = json.loads(line)
            if fields["schema"] != SCHEMA:
                raise ValueError(f"a lock file of schema {fields['schema']}; this is {SCHEMA}")
            label = fields.pop("label")
            record = Record(Label(**(label | {"id": ContainerId(label["id"])})), **fields)
    return record, ending


def _write(fd: int, line: bytes) -> None:
    """Appends one line, whole or not at all."""
    size = os.fstat(fd).st_size
    if os.pwrite(fd, line, size) != len(line):
        os.ftruncate(fd, size)
        raise OSError(28, "no space for a lock file's line")
