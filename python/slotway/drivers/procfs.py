"""What the kernel says about processes, and how one is signalled without ever hitting another.

A process id alone names nothing: it is used again. A process is its id, its start time and the boot
id. The descendants of a container are known by a **mark**: a number that every process of the
container has as its RLIMIT_LOCKS. Linux has not used that limit since 2.4, hands it on through
fork, exec and setsid, shows it to everybody in `/proc/PID/limits`, and lets nobody but root raise
it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import secrets
import signal
import time
from functools import cache
from pathlib import Path

RLIMIT_LOCKS = 10
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PROC = "/proc"
_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int | bytes) -> None:
    """`prctl(2)` with one argument."""
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


@cache
def boot_id() -> str:
    """Names this run of the kernel."""
    return Path(PROC, "sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 if there is none."""
    try:
        stat = Path(PROC, str(pid), "stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The command's name, in brackets, may hold anything.
    return int(stat.rpartition(")")[2].split()[19])


def data_bytes() -> int:
    """What RLIMIT_DATA counts of this process, and its stack."""
    return int(Path(PROC, "self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")


def signal_process(pid: int, started: int, boot: str, number: int) -> bool:
    """Signals the very process that started then; False if it is no more, whoever has its id
    now."""
    if boot != boot_id():
        return False
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor pins what had the id when it was opened; only then does the comparison
        # prove something.
        if start_time(pid) != started:
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def new_mark() -> int:
    """A mark that no other container has, below what this process may set."""
    hard = resource.getrlimit(RLIMIT_LOCKS)[1]
    ceiling = (1 << 62) if hard == resource.RLIM_INFINITY else hard
    return secrets.randbelow(ceiling - 1) + 1


def set_mark(mark: int) -> None:
    """Marks this process and its descendants to come."""
    resource.setrlimit(RLIMIT_LOCKS, (mark, mark))


def has_mark(pid: int, mark: int) -> bool:
    """Whether the process lives and carries the mark."""
    try:
        limits = Path(PROC, str(pid), "limits").read_bytes()
    except OSError:
        return False
    line = limits.partition(b"Max file locks")[2].partition(b"\n")[0]
    return str(mark).encode() in line.split()


def children() -> list[int]:
    """The direct children of this process, which has one thread."""
    own = os.getpid()
    with contextlib.suppress(FileNotFoundError):
        return [int(pid) for pid in Path(PROC, f"self/task/{own}/children").read_text().split()]
    found = []
    for pid in _processes():
        with contextlib.suppress(OSError, IndexError):
            stat = Path(PROC, str(pid), "stat").read_text("utf-8", "replace")
            if int(stat.rpartition(")")[2].split()[1]) == own:
                found.append(pid)
    return found


def purge(mark: int, timeout_s: float) -> bool:
    """Kills every process that carries the mark; True when two looks in a row found none.
    Blocks."""
    give_up = time.monotonic() + timeout_s
    clean = 0
    while clean < 2:
        found = [pid for pid in _processes() if has_mark(pid, mark)]
        if found and time.monotonic() > give_up:
            return False
        clean = 0 if found else clean + 1
        for pid in found:
            _kill_marked(pid, mark)
        if found:
            time.sleep(0.005)
    return True


def _kill_marked(pid: int, mark: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            if has_mark(pid, mark):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]
