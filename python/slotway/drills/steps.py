"""What a drill does to a cluster: the commands that a person would type, shown and carried out."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slotway.errors import SlotwayError
from slotway.etcd.server import find
from slotway.records import Keys

COMMAND_S = 20.0


class DrillError(SlotwayError):
    """The drill cannot be carried out here; the message says what it needs."""

    reason = "INVALID_FIELD"


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster that a drill is for."""

    cluster: str
    etcd: tuple[str, ...]
    """Endpoints."""
    routers: tuple[str, ...]
    pids: Mapping[str, int] = field(default_factory=dict)
    """Of the processes on this machine, by name."""

    @property
    def keys(self) -> Keys:
        """Where its ledger is."""
        return Keys(self.cluster)

    def pid(self, name: str) -> int:
        """The process of this name. DrillError if it is not known here."""
        if name not in self.pids:
            known = ", ".join(self.pids) or "none"
            raise DrillError(
                f"the process id of {name} is not known (known: {known}): this drill is for a"
                " cluster of `slotway dev`, or give --pid NAME=PID"
            )
        return self.pids[name]

    @property
    def members(self) -> dict[str, int]:
        """etcd's members that run: their process ids."""
        named = [name for name in self.pids if name.startswith("etcd-") or name == "slotway"]
        if not named:
            self.pid("etcd-1")
        return {name: self.pids[name] for name in named if _runs(self.pids[name])}


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Shell:
    """Carries steps out, and says each as a command line first."""

    def __init__(self, target: Target, say: Any) -> None:
        self.target, self._say = target, say
        self.at_ns = 0
        """When the newest command began; `time.monotonic_ns`."""

    async def etcdctl(self, *arguments: str, endpoint: str = "") -> str:
        """Runs etcdctl; what it printed. DrillError with its message if it failed."""
        endpoints = endpoint or ",".join(self.target.etcd)
        command = ["etcdctl", f"--endpoints={endpoints}", *arguments]
        self._say("$ " + shlex.join(command))
        # etcdctl refuses a flag beside a variable that says the same.
        environment = {k: v for k, v in os.environ.items() if k != "ETCDCTL_ENDPOINTS"}
        environment["ETCDCTL_API"] = "3"
        self.at_ns = time.monotonic_ns()
        process = await asyncio.create_subprocess_exec(
            find("etcdctl"),
            *command[1:],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        try:
            async with asyncio.timeout(COMMAND_S):
                out, error = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise DrillError(f"etcdctl did not end within {COMMAND_S:.0f} s") from None
        if process.returncode:
            raise DrillError(f"etcdctl: {error.decode(errors='replace').strip()}")
        return out.decode(errors="replace")

    async def post(self, endpoint: str, path: str, body: Mapping[str, str]) -> None:
        """A request to etcd's JSON gateway, for what etcdctl cannot say."""
        url = (endpoint if "://" in endpoint else f"http://{endpoint}") + path
        data = json.dumps(body)
        self._say(f"$ curl -d {shlex.quote(data)} {url}")
        self.at_ns = time.monotonic_ns()
        request = urllib.request.Request(url, data.encode(), method="POST")
        try:
            await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=5).read())
        except OSError as error:
            raise DrillError(f"{url}: {error}") from error

    async def lease_of(self, key: str) -> int:
        """The lease that a key is bound to."""
        found = json.loads(await self.etcdctl("get", key, "-w", "json"))
        kvs = found.get("kvs") or [{}]
        return int(kvs[0].get("lease", 0))

    def kill(self, number: signal.Signals, names: Sequence[str]) -> None:
        """Sends a signal to processes."""
        pids = [self.target.pid(name) for name in names]
        short = number.name.removeprefix("SIG")
        self._say(f"$ kill -{short} {' '.join(map(str, pids))}  # {', '.join(names)}")
        self.at_ns = time.monotonic_ns()
        for name, pid in zip(names, pids, strict=True):
            try:
                os.kill(pid, number)
            except OSError as error:
                raise DrillError(f"{name} (process {pid}): {error.strerror}") from error
