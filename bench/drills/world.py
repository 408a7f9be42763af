"""A cluster to be disturbed: etcd, an engine, Managers and Routers as processes, and a Router here.

Managers say themselves what they do (`drills.manager`): nobody is asked, so nobody is slowed down.
"""

import asyncio
import contextlib
import itertools
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from drills.child import Child
from drills.probe import Probe
from slotway.aio import CallError, Client
from slotway.config import EtcdConfig, RouterConfig
from slotway.etcd import Access
from slotway.etcd import Client as Etcd
from slotway.etcd.server import EtcdServer, free_port
from slotway.etcd.servers import etcd_servers, start_all
from slotway.manager.succession import YOUNG_S

CODE = b"def main(args): return args\n"
CLUSTER = "bench"
LOOK_S = 0.01
READY_S = 60.0
OLD_S = YOUNG_S + 0.3
"""A leader key that is younger than 2 s is left alone."""
PROBE_WAIT = "5m"


class ManagerProcess(Child):
    """One Manager, and what it said of itself."""

    def __init__(self, name: str, log: Path, settings: dict[str, object]) -> None:
        arguments = [json.dumps({"id": name, **settings})]
        super().__init__(log, "drills.manager", arguments, self._note)
        self.name = name
        self.role, self.since = "", 0
        self.pauses: list[tuple[int, float]] = []
        """(ended at, ms)."""

    async def start(self) -> None:
        """Starts it."""
        self.role = ""
        self.pauses.clear()
        await super().start()

    def _note(self, said: dict[str, Any]) -> None:
        if "pause" in said:
            self.pauses.append(tuple(said["pause"]))
        else:
            self.role, self.since = said["role"], said["at"]

    def paused_ms(self, after: int, until: int) -> float:
        """The longest pause of its event loop that ended between these moments."""
        return max((ms for at, ms in self.pauses if after <= at <= until), default=0.0)


class World:
    """See the module; an async context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        members: int = 1,
        etcd_options: Sequence[str] = (),
        routers: int = 2,
        **settings: object,
    ) -> None:
        folder.mkdir(parents=True)
        logs = self.logs = folder / "logs"
        logs.mkdir()
        self.members = etcd_servers(
            folder / "etcd", logs, members, ("--log-level=warn", *etcd_options)
        )
        self.endpoints = tuple(member.endpoint for member in self.members)
        self._engine = Child(logs / "engine.log", "drills.engine", [str(folder / "engine.sock")])
        managers = {
            "cluster": CLUSTER,
            "etcd": {"endpoints": self.endpoints},
            "data_dir": str(folder / "data"),
            "run_dir": str(folder / "s"),
            "engine": str(folder / "engine.sock"),
            "driver": "fake",
            "containers_max": 20_000,
            "memory_max_mib": 20_000_000,
            **settings,
        }
        self.managers = [
            ManagerProcess(name, logs / f"{name}.log", managers) for name in ("one", "two")
        ]
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in range(routers)]
        etcd = ",".join(self.endpoints)
        self._routers = [
            Child(
                logs / f"router-{number}.log",
                "slotway.cli",
                [
                    *("router", "--name", f"router-{number}", "--listen", address),
                    *("--cluster", CLUSTER, "--etcd", etcd),
                ],
            )
            for number, address in enumerate(self.addresses, 1)
        ]
        self._stack = contextlib.AsyncExitStack()
        self._cold = itertools.count(1)

    async def __aenter__(self) -> "World":
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def _start(self) -> None:
        await start_all(self.members)
        for child in (self._engine, *self.managers, *self._routers):
            await child.start()
        config = RouterConfig(
            name="probe",
            cluster=CLUSTER,
            etcd=EtcdConfig(endpoints=self.endpoints),
            max_wait=PROBE_WAIT,
            give_back="24h",
        )
        self.probe = await self._stack.enter_async_context(Probe(config))
        self.client = await self._stack.enter_async_context(Client(self.probe.address))
        self.clients = [
            await self._stack.enter_async_context(Client(address)) for address in self.addresses
        ]
        self.etcd = await self._stack.enter_async_context(Etcd(Access(self.endpoints)))
        await self.led()

    async def __aexit__(self, *problem: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        self.wake()
        await self._stack.aclose()
        for child in (*self._routers, *self.managers, self._engine):
            await child.stop(signal.SIGKILL)
        for member in self.members:
            await member.stop(signal.SIGKILL)

    def wake(self) -> None:
        """Nothing is stopped any more."""
        for child in self.managers:
            if child.runs:
                child.send(signal.SIGCONT)
        for member in self.members:
            signal_member(member, signal.SIGCONT)

    async def recover(self) -> None:
        """Everything runs again, after a repetition that broke."""
        self.wake()
        for member in self.members:
            if member.process is None or member.process.returncode is not None:
                await member.stop()
                await member.start()
        await self.led()

    async def until(self, what: str, condition: Callable[[], object]) -> None:
        """Waits; TimeoutError that says for what."""
        try:
            async with asyncio.timeout(READY_S):
                while not condition():  # noqa: ASYNC110 - what processes say is looked at
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise TimeoutError(f"{what}: not within {READY_S:.0f} s") from None

    async def led(self) -> tuple[ManagerProcess, ManagerProcess]:
        """The leader and the standby, once there are both and the Routers hear the former."""
        for manager in self.managers:
            if not manager.runs:
                await manager.start()

        def settled() -> bool:
            roles = sorted(manager.role for manager in self.managers)
            return roles == ["leads", "standby"] and self.probe._session.leader is not None

        await self.until("a leader and a standby", settled)
        leads, follows = sorted(self.managers, key=lambda manager: manager.role)
        return leads, follows

    async def old(self) -> tuple[ManagerProcess, ManagerProcess]:
        """The same, once the leader key is so old that suspicion is acted upon."""
        leads, follows = await self.led()
        left_s = OLD_S - (time.monotonic_ns() - leads.since) / 1e9
        if left_s > 0:
            await asyncio.sleep(left_s)
        return leads, follows

    async def put(self, name: str, **limits: Any) -> None:
        """Puts an action; tries again while there is no leader."""
        async with asyncio.timeout(READY_S):
            while True:
                try:
                    await self.client.put_action(name, CODE, **limits)
                    return
                except CallError:
                    await asyncio.sleep(LOOK_S)

    @contextlib.asynccontextmanager
    async def cold(self) -> AsyncIterator[str]:
        """An action that nobody has asked for yet; it is deleted at the end."""
        name = f"bench/cold-{next(self._cold)}"
        await self.put(name, concurrency=1, memory_mib=64)
        try:
            yield name
        finally:
            with contextlib.suppress(CallError):
                await self.client.delete_action(name)


def signal_member(member: EtcdServer, number: signal.Signals) -> int:
    """Sends a signal to a member of etcd, if it runs; the moment before."""
    at = time.monotonic_ns()
    if member.process is not None and member.process.returncode is None:
        member.process.send_signal(number)
    return at
