"""The Manager's server: one port with all its services, and the way to leadership and back.

It serves before it leads: Routers attach to a standby as well, and are greeted when it comes to
lead. Containers outlive it, and so does the ledger: stopping it hands over, and ends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from slotway._slotcore import Ledger
from slotway.config import ManagerConfig, split_address, stock_of
from slotway.drivers import open_driver
from slotway.drivers.base import Driver
from slotway.errors import SlotwayError
from slotway.etcd import Client
from slotway.manager.actions import CODE_BYTES_MAX, Actions, CodeKeeper
from slotway.manager.chain import DeposedError
from slotway.manager.codestore import CodeStore
from slotway.manager.followers import Followers
from slotway.manager.inbox import Closed, Inbox, Opened, Reported, Write
from slotway.manager.leader import Leadership, Reign
from slotway.manager.loop import Loop
from slotway.manager.overview import Overview
from slotway.manager.plan import Stock
from slotway.manager.policy import Policy
from slotway.manager.routers import Routers
from slotway.manager.sessions import Session, Sessions
from slotway.manager.standby import Standby
from slotway.manager.starts import Starts
from slotway.members import register
from slotway.records import Keys
from slotway.rundir import run_dir
from slotway.v1 import (
    action_pb2,
    action_pb2_grpc,
    cluster_pb2,
    cluster_pb2_grpc,
    ledger_pb2,
    manager_pb2,
    manager_pb2_grpc,
    standby_pb2,
    standby_pb2_grpc,
)

log = structlog.get_logger(__name__)

STOP_S = 2.0
"""How long calls may take to end when the server stops."""
WEDGED_S = 3.0
"""A loop whose turn takes longer is reported as not serving."""
LOOK_S = 0.5
LEADER = "slotway.leader"
"""The health service's name for: this Manager leads, and its loop turns."""


class Manager:
    """One Manager process; `run` is all of it."""

    def __init__(
        self,
        config: ManagerConfig,
        driver: Driver,
        code: CodeKeeper,
        client: Client,
        on_address: Callable[[str], None] = lambda address: None,
    ) -> None:
        self.incarnation = secrets.token_hex(16)
        self._config, self._driver, self._code, self._client = config, driver, code, client
        self._on_address = on_address
        self._keys = Keys(config.cluster)
        self._inbox = Inbox()
        self._ledger = Ledger()
        self._sessions = Sessions(self._inbox)
        self._followers = Followers(lambda: self._loop.books.revision if self._loop else 0)
        self._health = HealthServicer()
        self._address = ""
        self._standby: Standby | None = None
        self._loop: Loop | None = None

    # What the services ask.

    @property
    def address(self) -> str:
        """What others connect to, host:port; empty before it listens."""
        return self._address

    @property
    def leader_address(self) -> str:
        """Where the Manager on the leader key is, as far as this one knows; empty: nobody."""
        return self._standby.leader_address if self._standby is not None else ""

    def loop(self) -> Loop:
        """The loop of this Manager's term; raises NOT_LEADER or NO_LEADER if another one leads."""
        if self._loop is not None and self._loop.ready:
            return self._loop
        leader = self.leader_address
        if leader and leader != self._address:
            raise SlotwayError(
                f"Manager {self._config.id} is a standby; {leader} leads",
                reason="NOT_LEADER",
                metadata={"leader": leader},
            )
        raise SlotwayError("no Manager leads at present", reason="NO_LEADER")

    def records(self) -> dict[str, ledger_pb2.ActionRecord]:
        """See `actions.Leading`."""
        return {name: action.record for name, action in self.loop().books.actions.items()}

    def trouble(self, name: str) -> action_pb2.Trouble | None:
        """See `actions.Leading`."""
        action = self.loop().books.actions.get(name)
        return action.trouble(asyncio.get_running_loop().time()) if action else None

    def write(self, write: Write) -> None:
        """See `actions.Leading`."""
        self.loop()
        self._inbox.put(write)

    # Its life.

    async def run(self) -> None:
        """Serves until cancelled. Raises SlotwayError if this ledger must not be led, OSError if
        the address is taken, and DriverError if the engine cannot be used."""
        await self._driver.start()
        try:
            async with self._serving(), asyncio.TaskGroup() as tasks:
                tasks.create_task(self._register(), name="member")
                tasks.create_task(self._watch_loop(), name="loop-watch")
                tasks.create_task(self._lead_again(), name="leadership")
        except BaseExceptionGroup as group:
            raise _first(group) from group
        finally:
            await self._driver.close()

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", CODE_BYTES_MAX + 1_048_576),
                ("grpc.max_send_message_length", CODE_BYTES_MAX + 1_048_576),
                ("grpc.so_reuseport", 0),
            ]
        )
        manager_pb2_grpc.add_ManagerServiceServicer_to_server(self._sessions, server)
        action_pb2_grpc.add_ActionServiceServicer_to_server(
            Actions(self, self._code, self._driver), server
        )
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(
            Overview(
                self,
                self._config.cluster,
                self._config.id,
                self._followers.statuses,
                self._driver,
            ),
            server,
        )
        standby_pb2_grpc.add_StandbyServiceServicer_to_server(self._followers, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            [
                manager_pb2.DESCRIPTOR.services_by_name["ManagerService"].full_name,
                action_pb2.DESCRIPTOR.services_by_name["ActionService"].full_name,
                cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"].full_name,
                standby_pb2.DESCRIPTOR.services_by_name["StandbyService"].full_name,
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            ],
            server,
        )
        host, _ = split_address(self._config.listen)
        try:
            port = server.add_insecure_port(self._config.listen)
        except RuntimeError as exc:
            raise OSError(f"cannot listen on {self._config.listen}: {exc}") from exc
        self._address = self._config.advertise or (
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        )
        await server.start()
        log.info("listening", address=self._address)
        self._on_address(self._address)
        try:
            yield
        finally:
            await self._health.enter_graceful_shutdown()
            self._sessions.close()
            self._followers.close()
            await server.stop(STOP_S)

    async def _register(self) -> None:
        member = ledger_pb2.MemberRecord(
            id=self._config.id, address=self._address, incarnation=self.incarnation
        )
        await register(self._client, self._keys, member, self._lease_s)

    @property
    def _lease_s(self) -> int:
        return max(2, round(self._config.lease.total_seconds()))

    async def _lead_again(self) -> None:
        record = ledger_pb2.LeaderRecord(
            id=self._config.id, address=self._address, incarnation=self.incarnation
        )
        period_s = self._config.period.total_seconds()
        routers = Routers(self._inbox, period_s, asyncio.get_running_loop().time)
        leadership = Leadership(
            self._client,
            self._keys,
            record,
            self._lease_s,
            period_s=period_s,
            ask=lambda: self._ask(routers),
            heir=self._followers.heir,
        )
        standby = self._standby = leadership.standby
        standby.on_key = lambda: self._point(routers)
        try:
            while True:
                waiting = asyncio.create_task(self._stand_by(standby, routers))
                async with leadership.reign() as reign:
                    waiting.cancel()
                    await asyncio.wait({waiting})
                    await self._lead(reign, routers)
        finally:
            waiting.cancel()
            await asyncio.wait({waiting})
            routers.stop()

    async def _lead(self, reign: Reign, routers: Routers) -> None:
        config = self._config
        starts = Starts(
            self._driver,
            self._code,
            self._inbox,
            create_s=config.create_timeout.total_seconds(),
            init_s=config.init_timeout.total_seconds(),
            api_host=config.api_host,
        )
        self._loop = Loop(
            manager=config.id,
            term=reign.term,
            ledger=self._ledger,
            replica=reign.replica,
            seen=reign.ledger,
            followers=self._followers,
            routers=routers,
            inbox=self._inbox,
            client=self._client,
            keys=self._keys,
            driver=self._driver,
            starts=starts,
            policy=policy_of(config),
        )
        turning = asyncio.create_task(self._loop.run(), name="loop")
        losing = asyncio.create_task(reign.lost.wait(), name="reign")
        try:
            await asyncio.wait({turning, losing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reign.served = self._loop.ready
            self._loop = None
            turning.cancel()
            losing.cancel()
            await asyncio.wait({turning, losing})
        if turning.cancelled():
            log.warning("leads no more", why=reign.why)
            return
        try:
            turning.result()
        except DeposedError as exc:
            log.warning("leads no more", why=str(exc))

    async def _stand_by(self, standby: Standby, routers: Routers) -> None:
        """Keeps the Routers' streams while another one leads, and tells them who."""
        while True:
            for happening in await self._inbox.take():
                match happening:
                    case Opened(session):
                        try:
                            routers.open(session, has_shares=True)
                        except SlotwayError as exc:
                            session.close(exc)
                        else:
                            self._ledger.attach(session.router, session.stream)
                            _point(session, self.leader_address)
                    case Closed(session):
                        if routers.close(session) is not None:
                            self._ledger.detach(session.router, session.stream)
                    case Reported(session, message):
                        session.unread.release()
                        if message.HasField("leader_age"):
                            standby.answered(message.leader_age.ToTimedelta().total_seconds())
                    case Write(done=done):
                        if not done.done():
                            done.set_exception(DeposedError("this Manager does not lead any more"))
                    case _:
                        pass  # what a driver said of containers is found again by the next leader

    def _point(self, routers: Routers) -> None:
        """Somebody else came to lead: the Routers are told."""
        for router in routers.by_id.values():
            if router.session is not None:
                _point(router.session, self.leader_address)

    @staticmethod
    def _ask(routers: Routers) -> int:
        """Asks every Router that has a stream how long ago it heard of the leader."""
        sessions = [one.session for one in routers.by_id.values() if one.session is not None]
        for session in sessions:
            session.send(manager_pb2.AttachResponse(ask_leader_age=True))
        return len(sessions)

    async def _watch_loop(self) -> None:
        """Makes a wedged loop visible to health checks, and says so once."""
        serving, not_serving = (
            health_pb2.HealthCheckResponse.SERVING,
            health_pb2.HealthCheckResponse.NOT_SERVING,
        )
        await self._health.set("", serving)
        wedged = False
        while True:
            loop, now = self._loop, asyncio.get_running_loop().time()
            was, wedged = wedged, loop is not None and now - loop.turned_at > WEDGED_S
            if wedged and not was and loop is not None:
                log.error("the loop does not turn", since_s=WEDGED_S)
            leads = loop is not None and loop.ready and not wedged
            await self._health.set(LEADER, serving if leads else not_serving)
            await asyncio.sleep(LOOK_S)


def _point(session: Session, leader: str) -> None:
    if leader:
        session.send(manager_pb2.AttachResponse(leader_address=leader))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a caller can act on: the first error that we raise on purpose, or just the first."""
    chosen: BaseException = group.subgroup((SlotwayError, OSError)) or group
    while isinstance(chosen, BaseExceptionGroup):
        chosen = chosen.exceptions[0]
    return chosen


def policy_of(config: ManagerConfig) -> Policy:
    """The limits of the cluster, as configured."""
    return Policy(
        containers_max=config.containers_max,
        memory_mib_max=config.memory_max_mib,
        keep_warm_s=config.keep_warm.total_seconds(),
        overrun_grace_s=config.overrun_grace.total_seconds(),
        drain_grace_s=max(timedelta(seconds=1), config.overrun_grace).total_seconds(),
        silence_grace_s=config.silence_grace.total_seconds(),
        residence_s=config.residence.total_seconds(),
        prewarm=tuple(
            Stock(
                kind,
                *stock_of(text),
                ttl_s=config.prewarm_ttl.total_seconds(),
                memory_mib=config.prewarm_memory_mib,
                concurrency=config.prewarm_concurrency,
            )
            for kind, text in config.prewarm.items()
        ),
    )


async def serve(
    config: ManagerConfig, on_address: Callable[[str], None] = lambda address: None
) -> None:
    """Runs a Manager until cancelled; `on_address` is told where it listens.

    Raises SlotwayError if the ledger must not be led or the engine cannot be used, and OSError.
    """
    async with Client(config.etcd.access()) as client:
        code = CodeStore(config.code_store or str(config.data_dir / "code"))
        await Manager(config, driver_of(config), code, client, on_address).run()


def driver_of(config: ManagerConfig) -> Driver:
    """The configured driver."""
    socket_dir = config.run_dir or run_dir(config.data_dir)
    return open_driver(
        config.driver, config.cluster, config.data_dir, socket_dir, config.docker_options()
    )
