"""ClusterService: shows the cluster as its leader sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import grpc.aio

from slotway.drivers.base import ContainerId, DriverError
from slotway.errors import SlotwayError
from slotway.manager.endings import Ending
from slotway.manager.loop import Loop
from slotway.manager.routers import Router
from slotway.status import abort_with, invalid
from slotway.v1 import cluster_pb2, cluster_pb2_grpc, manager_pb2

LINES_DEFAULT, LINES_MAX = 1000, 10_000
LINE_BYTES_MAX = 4096
ANSWER_BYTES_MAX = 3 * 1024 * 1024
LOG_S = 10.0
"""For the engine to give a log."""
STAMP_BYTES = len("2026-11-24T12:00:00.000Z")
"""Of a line, before its activation."""
INTERVAL_S = 0.1
"""Between two answers of a watch, at least."""

_Context = grpc.aio.ServicerContext[Any, Any]
_State = cluster_pb2.RouterStatus


class Viewing(Protocol):
    """Where the leader's loop is to be found."""

    def loop(self) -> Loop:
        """Raises SlotwayError NOT_LEADER or NO_LEADER if this Manager does not lead."""

    @property
    def address(self) -> str:
        """This Manager's, host:port."""


class Logs(Protocol):
    """The part of the driver that keeps what containers print."""

    async def log(self, container: ContainerId) -> bytes:
        """See `drivers.base.Driver`."""


class Overview(cluster_pb2_grpc.ClusterServiceServicer):
    """The service."""

    def __init__(
        self,
        viewing: Viewing,
        cluster: str,
        manager: str,
        standbys: Callable[[], list[cluster_pb2.StandbyStatus]],
        logs: Logs,
    ) -> None:
        self._viewing, self._cluster, self._manager = viewing, cluster, manager
        self._standbys, self._logs = standbys, logs

    async def GetCluster(  # noqa: N802
        self, request: cluster_pb2.GetClusterRequest, context: _Context
    ) -> cluster_pb2.GetClusterResponse:
        """See the proto."""
        try:
            cluster = self._cluster_now()
            if request.with_ended:
                cluster.ended.extend(map(_ended, self._viewing.loop().books.endings))
            return cluster_pb2.GetClusterResponse(cluster=cluster)
        except SlotwayError as exc:
            await abort_with(context, exc)

    async def WatchCluster(  # noqa: N802
        self, request: cluster_pb2.WatchClusterRequest, context: _Context
    ) -> AsyncIterator[cluster_pb2.WatchClusterResponse]:
        """See the proto."""
        before = b""
        while True:
            try:
                cluster = self._cluster_now()
                changed = self._viewing.loop().changed
            except SlotwayError as exc:
                await abort_with(context, exc)
            if (now := _fingerprint(cluster)) != before:
                before = now
                yield cluster_pb2.WatchClusterResponse(cluster=cluster)
            await asyncio.sleep(INTERVAL_S)
            await changed.wait()

    async def GetContainerLog(  # noqa: N802
        self, request: cluster_pb2.GetContainerLogRequest, context: _Context
    ) -> cluster_pb2.GetContainerLogResponse:
        """See the proto."""
        try:
            self._viewing.loop()
            if request.lines > LINES_MAX:
                raise invalid("lines", f"must be at most {LINES_MAX}, not {request.lines}")
            log = await self._log(request.container_id)
        except SlotwayError as exc:
            await abort_with(context, exc)
        wanted = f" {request.activation_id} ".encode()
        lines = [
            line[:LINE_BYTES_MAX].decode("utf-8", "replace")
            for line in log.splitlines()
            if not request.activation_id or line.startswith(wanted, STAMP_BYTES)
        ]
        lines = lines[-(request.lines or LINES_DEFAULT) :]
        size = 0
        for number, line in enumerate(reversed(lines)):
            size += len(line.encode()) + 8
            if size > ANSWER_BYTES_MAX:
                lines = lines[len(lines) - number :]
                break
        return cluster_pb2.GetContainerLogResponse(lines=lines)

    async def _log(self, container: str) -> bytes:
        try:
            async with asyncio.timeout(LOG_S):
                return await self._logs.log(ContainerId(container))
        except TimeoutError:
            why = f"the engine did not answer within {LOG_S:g} s"
        except DriverError as exc:
            why = str(exc)
        raise invalid("container_id", why)

    def _cluster_now(self) -> cluster_pb2.Cluster:
        loop = self._viewing.loop()
        books, now = loop.books, asyncio.get_running_loop().time()
        cluster = cluster_pb2.Cluster(
            name=self._cluster,
            term=manager_pb2.Term(epoch=loop.term[0], revision=loop.term[1]),
            leader=self._manager,
            leader_address=self._viewing.address,
            ledger_revision=books.revision,
            actions=len(books.actions),
            standbys=self._standbys(),
        )
        holders: set[str] = set()
        for _, container in sorted(books.containers.items()):
            status = cluster.containers.add()
            status.record.CopyFrom(container.record)
            status.record.shares.clear()
            status.record.shares.update(books.ledger.shares(container.id))
            status.state_age.FromMilliseconds(int((now - container.since) * 1000))
            holders.update(status.record.shares)
        known = books.routers.by_id
        for router in sorted(known.values(), key=lambda router: (router.name, router.id)):
            if router.session is not None or router.id in holders:
                cluster.routers.append(self._status(loop, router, now))
        for stranger in sorted(holders - known.keys()):
            cluster.routers.add(incarnation=stranger, state=_State.STATE_AWAY)
        return cluster

    def _status(self, loop: Loop, router: Router, now: float) -> cluster_pb2.RouterStatus:
        state = _State.STATE_AWAY
        if router.session is not None:
            known = loop.books.ledger.known(router.id)
            fresh = loop.books.routers.fresh(router, now)
            state = _State.STATE_LIVE if known and fresh else _State.STATE_SILENT
        status = cluster_pb2.RouterStatus(
            name=router.name, incarnation=router.id, address=router.address, state=state
        )
        for action, (waiting, idle) in sorted(router.facts.demands().items()):
            demand = status.demand.add(action=action, waiting=waiting)
            for container, slots in sorted(idle.items()):
                demand.idle.add(container_id=container, idle=slots)
        return status


def _ended(ending: Ending) -> cluster_pb2.EndedContainer:
    message = cluster_pb2.EndedContainer(
        id=ending.container,
        action=ending.action,
        revision=ending.revision,
        reason=ending.reason,
        crashed=ending.crashed,
    )
    if ending.served_s is not None:
        message.served.FromMilliseconds(int(ending.served_s * 1000))
    message.ended_at.FromMilliseconds(ending.ended_at_ms)
    return message


def _fingerprint(cluster: cluster_pb2.Cluster) -> bytes:
    """What counts as a change: not the ages, nor how far the standbys are."""
    copy = cluster_pb2.Cluster()
    copy.CopyFrom(cluster)
    for container in copy.containers:
        container.ClearField("state_age")
    for standby in copy.standbys:
        standby.ClearField("revision")
        standby.ClearField("lag")
    return copy.SerializeToString(deterministic=True)
