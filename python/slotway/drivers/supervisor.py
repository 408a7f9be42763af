"""The supervisor of one container: a small process outside the user's code, which knows when
nothing of it runs.

It is forked by the spawner, holds the container's lock, forks the runtime and waits. The runtime
dies with it (PDEATHSIG), and every orphan of the container becomes its child (subreaper), so that
"no child left" means that nothing is left. It ends when the runtime does or on SIGTERM: it kills
and reaps all there is, says so in the lock file, and exits last. It has no thread and no loop of
asyncio, and imports nothing that the spawner has not imported before.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import shutil
import signal
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from slotway.drivers import lock, procfs
from slotway.drivers.base import Label
from slotway.runtime.server import serve

MIB = 1024 * 1024
LOG_BYTES_MAX = 4 * MIB
"""Of one log file; as much again is kept of what was before."""
STACK_BYTES = 2 * MIB
PROCESSES_MAX = 32_768


@dataclass(frozen=True, slots=True)
class Order:
    """A container to be made, as the spawner is told; paths are absolute."""

    label: Label
    capacity: int
    memory_mib: int
    lock: str
    socket: str
    log: str
    work: str


def supervise(order: Order, reply: int) -> NoReturn:
    """Becomes the container's supervisor. On `reply` goes "ready", "exists" or what is wrong; then
    it is closed."""
    os.setsid()
    own, mark = os.getpid(), procfs.new_mark()
    record = lock.Record(order.label, own, procfs.start_time(own), procfs.boot_id(), mark)
    try:
        held = lock.take(Path(order.lock), record)
    except FileExistsError:
        _leave(reply, "exists")
    # Only now is the spawner's guard let go of: see `ProcessDriver`.
    _close_all_but(held, reply)
    ending = "its supervisor failed"
    try:
        ending = _run(order, mark, reply)
    except Exception as error:
        ending = f"its supervisor failed: {error!r}"
    finally:
        _end_all()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(order.socket)
        shutil.rmtree(order.work, ignore_errors=True)
        lock.end(held, ending)
        os._exit(0)


def _run(order: Order, mark: int, reply: int) -> str:
    """Forks the runtime and waits for the end of the container, which it returns in words."""
    for fd in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    procfs.prctl(procfs.PR_SET_CHILD_SUBREAPER, 1)
    procfs.prctl(procfs.PR_SET_NAME, b"slotway-superv")
    awake, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup)
    for number in signal.SIGCHLD, signal.SIGTERM:
        signal.signal(number, lambda *_: None)
    os.makedirs(order.work, 0o700, exist_ok=True)
    output, log = os.pipe2(os.O_CLOEXEC)
    supervisor = os.getpid()
    runtime = os.fork()
    if runtime == 0:
        _close_all_but(0, reply, log)
        _become_runtime(order, mark, supervisor, reply, log)
    os.close(reply)
    os.close(log)
    os.set_blocking(output, False)
    with contextlib.closing(Log(order.log)) as file:
        poll = select.poll()
        poll.register(awake, select.POLLIN)
        poll.register(output, select.POLLIN)
        heard = True
        while True:
            poll.poll()
            if heard and not file.take(output):
                poll.unregister(output)
                heard = False
            # Signals are taken before children are reaped: the other way round, that of a child
            # which ends in between would be taken for one that was reaped.
            signals = b""
            with contextlib.suppress(BlockingIOError):
                signals = os.read(awake, 4096)
            ending = _reap(runtime)
            if signal.SIGTERM in signals:
                ending = "it was destroyed"
            if ending:
                _end_all()
                file.take(output)
                return ending


def _reap(runtime: int) -> str:
    """Reaps what has ended; how the runtime did, or ""."""
    ending = ""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == runtime:
                code = os.waitstatus_to_exitcode(ended[1])
                ending = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    return ending


def _end_all() -> None:
    """Kills and reaps until there is no child. An id of a child that was not reaped yet is nobody
    else's."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in procfs.children():
                os.kill(pid, signal.SIGKILL)
            os.waitpid(-1, 0)


class Log:
    """The container's log file: what comes through the pipe, of bounded size."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size

    def _open(self) -> int:
        return os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def take(self, pipe: int) -> bool:
        """Moves what the pipe holds; False if nobody can write to it any more."""
        with contextlib.suppress(BlockingIOError):
            # As much as a pipe holds, so that a flood does not keep the supervisor from its
            # signals.
            if not (data := os.read(pipe, 64 * 1024)):
                return False
            with contextlib.suppress(OSError):
                self._write(data)
        return True

    def _write(self, data: bytes) -> None:
        if self._size + len(data) > LOG_BYTES_MAX:
            os.rename(self._path, f"{self._path}.1")
            os.close(self._fd)
            self._fd, self._size = self._open(), 0
        self._size += os.write(self._fd, data)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)


def _become_runtime(order: Order, mark: int, supervisor: int, reply: int, log: int) -> NoReturn:
    """The child: takes its limits upon itself and serves."""
    try:
        procfs.prctl(procfs.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)
        os.setsid()
        procfs.prctl(procfs.PR_SET_NAME, b"slotway-action")
        signal.set_wakeup_fd(-1)
        for number in signal.SIGCHLD, signal.SIGTERM, signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.chdir(order.work)
        os.environ |= {
            "TMPDIR": order.work,
            "HOME": order.work,
            "SLOTWAY_CONTAINER": order.label.id,
        }
        listener = socket.socket(socket.AF_UNIX)
        os.umask(0o177)
        listener.bind(order.socket)
        os.umask(0o077)
        _limit(order, mark)
        serve(listener, order.capacity, ready=lambda: _reply(reply, "ready"))
    except BaseException as error:
        _leave(reply, f"{type(error).__name__}: {error}")
    os._exit(1)


def _limit(order: Order, mark: int) -> None:
    """Sets the limits, and the mark, which none of the container's processes can raise again."""
    procfs.set_mark(mark)
    threading.stack_size(STACK_BYTES)
    stacks = (order.capacity + 16) * STACK_BYTES
    # Memory that can be written: what the runtime has mapped already is not the action's.
    data = procfs.data_bytes() + order.memory_mib * MIB + stacks
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256 + 4 * order.capacity),
        (resource.RLIMIT_NPROC, PROCESSES_MAX),
        (resource.RLIMIT_DATA, data),
        # Also what is only reserved or shared: generous, against runaways alone.
        (resource.RLIMIT_AS, data + 1024 * MIB),
    ):
        hard = resource.getrlimit(limit)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bound, bound))


def _reply(reply: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(reply, text.encode()[:4096])
    os.close(reply)


def _leave(reply: int, text: str) -> NoReturn:
    _reply(reply, text)
    os._exit(1)


def _close_all_but(*kept: int) -> None:
    low = 0
    for fd in sorted(kept):
        # CPython takes an empty range at 0 for all there is.
        if low < fd:
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 20)
