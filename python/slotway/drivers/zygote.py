"""The program that the spawner runs: it has the runtime imported, has one thread and no loop, and
forks.

Each message on its socket is an order, with one descriptor to reply on. The supervisors that it
forks are none of its business (their end is noted by nobody but the kernel), and they outlive it.
It ends with its Manager.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys

from slotway.drivers.base import ContainerId, Label
from slotway.drivers.supervisor import Order, supervise

MESSAGE_BYTES_MAX = 64 * 1024


def main() -> None:
    """Serves the socket whose descriptor is the only argument."""
    orders = socket.socket(fileno=int(sys.argv[1]))
    os.chdir("/")
    os.umask(0o077)
    for number in signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE:
        signal.signal(number, signal.SIG_IGN)
    # Memory that no collection touches stays shared with all that are forked.
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, MESSAGE_BYTES_MAX, 1)
        if not message:
            return
        [reply] = descriptors
        if os.fork() == 0:
            _supervise(message, reply)
        os.close(reply)


def _supervise(message: bytes, reply: int) -> None:
    """The child: never returns into the loop above."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        fields = json.loads(message)
        label = fields.pop("label")
        supervise(Order(Label(**(label | {"id": ContainerId(label["id"])})), **fields), reply)
    except BaseException as error:
        os.write(reply, f"{type(error).__name__}: {error}".encode()[:4096])
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
