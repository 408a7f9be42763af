"""Processes of a bench: pinned to a core, their CPU time taken, ended with the bench."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

START_S = 30.0


class MissingError(Exception):
    """A program that the figure needs is not installed."""


def find(program: str, package: str) -> str:
    """The program's path; raises MissingError."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise MissingError(f"{program} is missing: apt-get install {package}")
    return path


@contextmanager
def running(command: Sequence[str], core: int) -> Iterator[subprocess.Popen[str]]:
    """The command, on that core, until the end of the block. `pid` is the program's own."""
    pinned = [find("taskset", "util-linux"), "-c", str(core), *command]
    process = subprocess.Popen(
        pinned, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def ask(process: subprocess.Popen[str], question: str = "") -> str:
    """Writes a line to the process, if there is one, and reads the line that it answers."""
    assert process.stdin is not None
    assert process.stdout is not None
    if question:
        process.stdin.write(question + "\n")
    answer = process.stdout.readline().strip()
    if not answer:
        raise RuntimeError(f"{process.args!r} ended: {process.poll()}")
    return answer


def cpu_s(pid: int) -> float:
    """The CPU time that all threads of the process have taken, user and system, in seconds.

    The kernel's CPU-time clock of that process: what utime + stime of /proc/PID/stat count in
    ticks of 10 ms."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_mb(pid: int) -> float:
    """The memory that is resident, in units of 10⁶ bytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"process {pid} has no memory")


def free_port() -> int:
    """A port of the loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_port(address: str) -> None:
    """Waits until somebody listens there: host:port."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
