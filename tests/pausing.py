"""Pausing a process of ours: it hangs, as on a machine that is overloaded or asleep."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slotway.etcd.server import EtcdServer


@contextmanager
def paused(server: EtcdServer) -> Iterator[None]:
    """All its threads stand still in the body: SIGSTOP alone takes effect some time later.

    A simulated etcd has a way of its own.
    """
    own = getattr(server, "paused", None)
    if own is not None:
        with own():
            yield
        return
    assert server.process is not None
    pid = server.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        while not all(_stopped(thread) for thread in Path(f"/proc/{pid}/task").iterdir()):
            time.sleep(0.001)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _stopped(thread: Path) -> bool:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return True
