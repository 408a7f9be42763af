"""The processes of a cluster: Managers, Routers and etcd's members, started and ended.

The Manager is Slotway's own, whole; of the Router it is the session; of etcd's client all of it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from slotway.config import EtcdConfig, ManagerConfig, RouterConfig
from slotway.errors import SlotwayError
from slotway.etcd import Client
from slotway.manager.server import Manager
from slotway.router.attachment import Identity
from slotway.router.server import _members
from slotway.router.session import Session
from tests.simulation.channel import Channel
from tests.simulation.engine import Engine, SimulatedDriver
from tests.simulation.etcd import Member, Quorum
from tests.simulation.loop import Node, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.plane import SimulatedPlane
from tests.simulation.request import Request
from tests.simulation.server import Server

CLUSTER = "simulated"
ETCD_PORTS = (2379, 2380)
RESTART_S = 0.5
DRAIN_S = 3.0
LEAVE_S = 5.0
FORWARD = "/simulated.Router/Forward"


@dataclass
class Hall:
    """What all processes share."""

    loop: VirtualLoop
    network: Network
    engine: Engine
    quorum: Quorum
    count: Counter[str]
    fail: Callable[[str], None]
    note: Callable[[str], None]
    requests: dict[int, Request]
    share_changed: Callable[[SimulatedPlane, str], None]
    period: timedelta
    planted: str = ""


class Code:
    """A code store in memory."""

    async def put(self, code: bytes) -> str:
        """See `actions.CodeKeeper`."""
        return "0" * 64

    async def get(self, sha256: str) -> bytes:
        """See `actions.CodeKeeper`."""
        return b"def main(): pass"


def etcd_config() -> EtcdConfig:
    """Both members."""
    return EtcdConfig(endpoints=tuple(f"127.0.0.1:{port}" for port in ETCD_PORTS))


def incarnation_of(name: str) -> str:
    """Of a Router that starts: a new one every time."""
    return f"{name}-{secrets.token_hex(4)}"


class EtcdMember:
    """One member of etcd."""

    def __init__(self, hall: Hall, number: int) -> None:
        self.name, self._port, self._hall = f"etcd{number}", ETCD_PORTS[number], hall
        self.node = Node(self.name)

    def start(self) -> None:
        """Serves."""
        self.node = Node(self.name)

        async def serve() -> None:
            server = Server(self._hall.network)
            Member(self._hall.quorum).add_to(server)
            server.add_insecure_port(f"127.0.0.1:{self._port}")

        self._hall.loop.spawn(self.node, serve(), self.name)

    def kill(self) -> None:
        """The store survives."""
        self._hall.network.kill(self.node)


class ManagerProcess:
    """One Manager, started again when it ends."""

    def __init__(self, hall: Hall, number: int) -> None:
        self.name, self._hall = f"m{number}", hall
        self._port = 7100 + number
        self.node = Node(self.name)
        self.manager: Manager | None = None
        self.up = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """A new process."""
        hall = self._hall
        self.node, self.up = Node(self.name), True
        config = ManagerConfig(
            cluster=CLUSTER,
            etcd=etcd_config(),
            id=self.name,
            listen=f"127.0.0.1:{self._port}",
            data_dir=Path("/nonexistent"),
            lease=timedelta(seconds=2),
            period=hall.period,
            keep_warm=timedelta(seconds=60),
            silence_grace=timedelta(seconds=3),
            overrun_grace=timedelta(seconds=1),
            containers_max=12,
        )

        async def run() -> None:
            driver = SimulatedDriver(hall.engine, self.node, CLUSTER)
            async with Client(config.etcd.access()) as client:
                self.manager = Manager(config, driver, Code(), client)
                await self.manager.run()

        self._task = hall.loop.spawn(self.node, run(), self.name)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self.up or task.cancelled():
            return
        self.up = False
        exc = task.exception()
        if isinstance(exc, SlotwayError) and exc.reason == "NAME_TAKEN":
            self._hall.count["Managers that found their name taken"] += 1
            self._hall.network.kill(self.node)
            self._hall.loop.call_later(RESTART_S, self._start_again, context=Node("init").context)
        else:
            self._hall.fail(f"Manager {self.name} ended: {exc!r}")

    def _start_again(self) -> None:
        if not self.up:
            self.start()

    def kill(self) -> None:
        """SIGKILL."""
        self.up = False
        self._hall.network.kill(self.node)

    async def stop(self) -> None:
        """SIGTERM: it hands over."""
        assert self._task is not None
        self.up = False
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=10)
        self._hall.network.kill(self.node)

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self._port}"

    @property
    def leads(self) -> bool:
        """Whether it serves as the leader, as far as it knows."""
        loop = self.manager._loop if self.manager is not None and self.up else None
        return loop is not None and loop.ready


class RouterProcess:
    """One Router."""

    def __init__(self, hall: Hall, number: int) -> None:
        self.name, self._hall = f"r{number}", hall
        self._port = 8100 + number
        self.node = Node(self.name)
        self.up = False
        self.accepting = False
        self.plane: SimulatedPlane
        self.session: Session
        self._channels: dict[str, Channel] = {}

    def start(self) -> None:
        """A new process, of a new incarnation."""
        hall = self._hall
        self.node, self.up, self.accepting = Node(self.name), True, True
        incarnation = incarnation_of(self.name)
        self.plane = SimulatedPlane(
            hall.loop,
            hall.engine,
            self.node,
            incarnation,
            self._forward,
            hall.share_changed,
            hall.planted,
        )
        self._channels = {}
        identity = Identity(self.name, incarnation, f"127.0.0.1:{self._port}")
        self.session = Session(self.plane, identity, give_back_ms=2000)
        config = RouterConfig(cluster=CLUSTER, etcd=etcd_config(), name=self.name)

        async def run() -> None:
            server = Server(hall.network)
            handler = grpc.unary_unary_rpc_method_handler(self._forwarded, bytes, bytes)
            handlers = {"Forward": handler}
            server.add_registered_method_handlers("simulated.Router", handlers)
            server.add_insecure_port(f"127.0.0.1:{self._port}")
            await self.session.run(_members(config))

        task = hall.loop.spawn(self.node, run(), self.name)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.up and not task.cancelled():
            self._hall.fail(f"Router {self.name} ended: {task.exception()!r}")

    def kill(self) -> None:
        """SIGKILL: its clients see their connections break."""
        self.up = self.accepting = False
        self._hall.network.kill(self.node)
        for request in self.plane.open.values():
            request.outcome = request.outcome or "router died"
            request.leave()

    async def stop(self) -> None:
        """SIGTERM: it ends what it has begun, gives its slots back, and leaves."""
        self.accepting = False
        until = self._hall.loop.time() + DRAIN_S
        while self.plane.open and self._hall.loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        leaving = self._hall.loop.spawn(self.node, self.session.leave(LEAVE_S), "leave")
        await asyncio.wait({leaving}, timeout=2 * LEAVE_S)  # it may be paused meanwhile
        if leaving.done() and leaving.result():
            self._hall.count["Routers that left in order"] += 1
        self.kill()

    # Requests.

    def invoke(self, request: Request) -> None:
        """A client sends a request to this Router."""
        self.plane.open[request.number] = request
        self._hall.requests[request.number] = request
        self._hall.loop.spawn(self.node, self._serve(self.plane, request), "request")

    async def _serve(self, plane: SimulatedPlane, request: Request) -> None:
        outcome = await plane.serve(request)
        del plane.open[request.number]
        if request.outcome and request.outcome not in ("left", "ACTION_TIMEOUT"):
            self._hall.fail(f"request {request.number}: {request.outcome}, then {outcome}")
        request.outcome = request.outcome or outcome
        self._hall.note(f"request {request.number} ends: {request.outcome}")
        self._hall.count[f"requests: {request.outcome}"] += 1

    async def _forward(self, address: str, request: Request) -> str | None:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = Channel(self._hall.network, address)
        try:
            await channel.connection()
        except ConnectionError:
            return None
        self._hall.count["requests forwarded"] += 1
        method = channel.unary_unary(FORWARD, bytes, bytes)
        asking = asyncio.ensure_future(method(str(request.number).encode()))
        try:
            await asyncio.wait({asking, request.left}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return "left"
            answer: bytes = asking.result()
        except grpc.aio.AioRpcError:
            return "CONTAINER_LOST"
        finally:
            asking.cancel()
        return None if answer == b"NOT_HERE" else answer.decode()

    async def _forwarded(self, number: bytes, context: Any) -> bytes:
        request = self._hall.requests[int(number)]
        # The call goes on without its client.
        serving = asyncio.ensure_future(self.plane.serve(request, forwarded=True))
        return (await asyncio.shield(serving)).encode()
