"""The Router's process: the native data plane in front, and behind it, on a Unix socket,
everything that is not `Invoke`.

    client ──▶ DataPlane ──▶ container                     (native, warm)
                  └──▶ this server ──▶ leading Manager     (health, reflection, and what is passed
                  on)

It serves with what it holds whether or not a Manager or etcd is there. It stops in order: not
ready, no new requests, the running ones finish, all shares are given back and acknowledged, and
only then the listener closes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self

import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from slotway._slotcore import DataPlane
from slotway.config import RouterConfig
from slotway.descriptors import raise_limit
from slotway.errors import SlotwayError
from slotway.etcd import Client
from slotway.members import managers
from slotway.records import Keys
from slotway.router.activations import ActivationServer, QueueServer
from slotway.router.attachment import MESSAGE_BYTES_MAX, Identity
from slotway.router.lane import Lane, LateStore
from slotway.router.passthrough import Passthrough
from slotway.router.session import Session
from slotway.v1 import action_pb2, activation_pb2, cluster_pb2, router_pb2
from slotway.v1.activation_pb2_grpc import (
    add_ActivationServiceServicer_to_server,
    add_QueueServiceServicer_to_server,
)

_log = structlog.get_logger()

COLD_PATH = "slotway.v1.ColdPath"
"""In health: NOT_SERVING while nobody leads. Nothing new is created then; what is warm goes on."""
SERVICES = (
    router_pb2.DESCRIPTOR.services_by_name["RouterService"].full_name,
    action_pb2.DESCRIPTOR.services_by_name["ActionService"].full_name,
    cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"].full_name,
)
STORED = tuple(one.full_name for one in activation_pb2.DESCRIPTOR.services_by_name.values())
"""Served by a Router that has a store."""
LEAVE_SECONDS = 5.0
"""For all shares to be given back at the end."""
ETCD_PAUSE_SECONDS = 1.0
DESCRIPTORS_MIN = 4096
_SOCKET_BYTES_MAX = 107
_POLL_SECONDS = 0.02

_Status = health_pb2.HealthCheckResponse


class Router:
    """One Router; an async context manager that serves. `stop` ends it in order, leaving the
    context at once."""

    def __init__(self, config: RouterConfig) -> None:
        """Binds the address. SlotwayError if it cannot."""
        self._config = config
        self._folder = _socket_folder()
        incarnation = uuid.uuid4().hex
        try:
            self._plane = DataPlane(
                listen=config.listen,
                upstream=self._socket,
                incarnation=incarnation,
                queue_max=config.queue_max,
                max_wait_ms=_ms(config.max_wait.total_seconds()),
                request_bytes_max=config.request_bytes_max,
                response_bytes_max=config.response_bytes_max,
                idle_close_ms=_ms(config.idle_close.total_seconds()),
                threads=config.threads,
                planted_bug=config.planted_bug,
                nested_max_wait_ms=_ms(config.nested_max_wait.total_seconds()),
                actions_listen=config.actions_listen or None,
            )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            also = f", or at --actions-listen {config.actions_listen}"
            raise SlotwayError(
                f"cannot listen on {config.listen}{also if config.actions_listen else ''}: "
                f"{error.strerror or error}; choose another address with --listen"
            ) from error
        self.address = self._plane.address
        self._health = health.aio.HealthServicer()
        self._session = Session(
            self._plane,
            Identity(config.name, incarnation, config.advertise or self.address),
            give_back_ms=_ms(config.give_back.total_seconds()),
            on_leader=self._on_leader,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._store = LateStore(config.store) if config.store else None
        self._lane = None
        if self._store is not None:
            self._lane = Lane(self._plane, self._store, config.name, config.async_wait)

    @property
    def _socket(self) -> str:
        return os.path.join(self._folder, "router.sock")

    async def __aenter__(self) -> Self:
        if self._lane is not None:
            await asyncio.to_thread(self._lane.start)
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names: tuple[str, ...] = (
            *SERVICES,
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
        )
        if self._store is not None:
            add_ActivationServiceServicer_to_server(ActivationServer(self._store.get), self._server)
            add_QueueServiceServicer_to_server(QueueServer(self._store.get), self._server)
            names = (*names, *STORED)
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)
        self._server.add_generic_rpc_handlers((Passthrough(self._leader),))
        self._server.add_insecure_port(f"unix:{self._socket}")
        await self._health.set(SERVICES[0], _Status.SERVING)
        await self._set_cold_path(False)
        await self._server.start()
        self._sessions = asyncio.create_task(self._session.run(_members(self._config)))
        self._plane.start()
        _log.info("the router serves", address=self.address, name=self._config.name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sessions.cancel()
        await asyncio.wait([self._sessions], timeout=LEAVE_SECONDS)
        if self._lane is not None:
            await asyncio.to_thread(self._lane.stop)
        await asyncio.to_thread(self._plane.close)
        await self._server.stop(None)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def stop(self) -> None:
        """Finishes what runs (for at most `drain`), and gives all shares back. The listener is
        open until then."""
        await self._health.enter_graceful_shutdown()
        self._plane.stop_accepting()
        if self._lane is not None:
            self._lane.drain()
        try:
            async with asyncio.timeout(self._config.drain.total_seconds()):
                await self._idle()
        except TimeoutError:
            _log.warning("requests still run and are cut", running=self._plane.running())
        if not await self._session.leave(LEAVE_SECONDS):
            _log.warning("left with slots: the leader takes them back when they are needed")

    async def _idle(self) -> None:
        while True:
            if self._plane.running() == 0:
                return
            await asyncio.sleep(_POLL_SECONDS)

    def _leader(self) -> grpc.aio.Channel | None:
        leader = self._session.leader
        return leader.channel if leader is not None else None

    def _on_leader(self, leads: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._set_cold_path(leads))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _set_cold_path(self, leads: bool) -> None:
        status = _Status.SERVING if leads else _Status.NOT_SERVING
        for service in (COLD_PATH, *SERVICES[1:]):
            await self._health.set(service, status)


async def serve(config: RouterConfig) -> None:
    """Runs a Router until cancelled, then stops it in order. SlotwayError if it cannot listen."""
    raise_limit(DESCRIPTORS_MIN, "one for every slot in use and for every client")
    async with Router(config) as router:
        try:
            await asyncio.Event().wait()
        finally:
            await router.stop()


async def _members(config: RouterConfig) -> AsyncGenerator[dict[str, str], None]:
    """The Managers by id. Never ends and never raises: without etcd, the last list stays good."""
    while True:
        try:
            async with (
                Client(config.etcd.access()) as etcd,
                aclosing(managers(etcd, Keys(config.cluster))) as lists,
            ):
                async for listed in lists:
                    yield listed
        except (SlotwayError, OSError) as error:
            _log.warning("managers cannot be looked up in etcd", why=str(error))
        except Exception:  # whatever it is: without this list there would be no session any more
            _log.exception("managers cannot be looked up in etcd")
        await asyncio.sleep(ETCD_PAUSE_SECONDS)


def _socket_folder() -> str:
    """A private folder for the Unix socket between the two halves, short enough for its path."""
    for parent in (None, "/tmp"):
        folder = tempfile.mkdtemp(prefix="slotway-", dir=parent)
        if len(os.fsencode(folder)) + len("/router.sock") <= _SOCKET_BYTES_MAX:
            return folder
        os.rmdir(folder)
    raise SlotwayError("no temporary folder has a path short enough for a Unix socket")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
