"""The Manager's end of the zygote: starts it, gives it orders, starts it again when it died."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict

from slotway.drivers.supervisor import Order

ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH")
"""What containers get of the Manager's environment; the rest may hold secrets."""
REPLY_BYTES_MAX = 4096
STOP_TIMEOUT_S = 2.0


class Spawner:
    """One zygote at a time, started when it is first needed."""

    def __init__(self, guard: int) -> None:
        """`guard` is a descriptor that the zygote holds as long as an order may be under way."""
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The zygote's process id."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Starts the zygote. It inherits its socket and the guard, and nothing else."""
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setblocking(False)
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        # Each further arena would reserve 64 MiB of a container's address space.
        environment["MALLOC_ARENA_MAX"] = "2"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "slotway.drivers.zygote", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), self._guard],
                env=environment,
                start_new_session=True,
            )

    async def spawn(self, order: Order) -> str:
        """Has the container made. "ready", "exists", what is wrong, or "" if nobody is left who
        could tell.

        Cancelled, it does not take the order back.
        """
        reply, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            try:
                await self._send(json.dumps(asdict(order)).encode(), theirs)
            finally:
                os.close(theirs)
            return await _read_all(reply)
        finally:
            os.close(reply)

    async def _send(self, message: bytes, reply: int) -> None:
        while True:
            if self._process is None or self._process.poll() is not None or self._orders is None:
                self._let_go()
                self.start()
            assert self._orders is not None
            try:
                socket.send_fds(self._orders, [message], [reply])
            except BlockingIOError:
                # Its queue is full: it forks as fast as it can.
                await asyncio.sleep(0.005)
            except (BrokenPipeError, ConnectionResetError):
                self._let_go()
            else:
                return

    def kill(self) -> None:
        """Has the zygote replaced. Orders that it has not carried out are answered with ""."""
        if self._process is not None:
            self._process.kill()

    def _let_go(self) -> None:
        if self._orders is not None:
            self._orders.close()
            self._orders = None
        if self._process is not None:
            # Without its socket it ends by itself; what is in its way is not worth waiting for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None

    async def close(self) -> None:
        """Ends the zygote. Containers live on."""
        await asyncio.to_thread(self._let_go)


async def _read_all(fd: int) -> str:
    """Reads until every writer has closed."""
    loop = asyncio.get_running_loop()
    data = b""
    readable = asyncio.Event()
    loop.add_reader(fd, readable.set)
    try:
        while len(data) <= REPLY_BYTES_MAX:
            try:
                piece = os.read(fd, REPLY_BYTES_MAX)
            except BlockingIOError:
                readable.clear()
                await readable.wait()
                continue
            if not piece:
                break
            data += piece
    finally:
        loop.remove_reader(fd)
    return data.decode("utf-8", "replace")
