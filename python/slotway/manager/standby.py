"""A standby at work: what it sees of the leader key, of the leader, of its Routers, and of etcd.

It decides nothing: `succession` does. Here is the I/O: the copy of the ledger, the stream to the
leader, the clock, and the probes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import structlog

from slotway.etcd import Client, EtcdError, EtcdUnavailable, KeyValue, Lease
from slotway.manager.replica import Replica
from slotway.manager.succession import (
    TICK_S,
    Answered,
    Ask,
    Asked,
    Beat,
    Broken,
    Event,
    Failed,
    Key,
    Lead,
    Probe,
    Probed,
    Refused,
    Seen,
    Succession,
    Take,
    Tick,
    Turned,
)
from slotway.members import refuses
from slotway.records import Keys, decode
from slotway.v1.ledger_pb2 import LeaderRecord
from slotway.v1.standby_pb2 import FollowRequest, FollowResponse
from slotway.v1.standby_pb2_grpc import StandbyServiceStub

log = structlog.get_logger(__name__)

LOOK_S = 0.5
"""How often the leader key is read although it is watched."""
OPEN_S = 1.0
QUIET_S = 5.0
"""A stream that is silent for so long is opened anew."""
RETRY_S = 0.05
PROBE_S = 0.3
_CUT = (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError, OSError, TimeoutError)
"""What a stream ends with."""
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)


class Standby:
    """Stands by, again and again, for one incarnation of a Manager.

    `ask` asks the Routers how long ago they heard of the leader, and returns how many were asked;
    what they say comes by `answered`.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        record: LeaderRecord,
        period_s: float,
        ask: Callable[[], int],
    ) -> None:
        self.succession = Succession(record.incarnation, period_s)
        self.replica = Replica(client, keys)
        self.on_key: Callable[[], None] = lambda: None
        """Called when somebody else came to lead, or nobody."""
        self._client, self._keys, self._record, self._ask = client, keys, record, ask
        self._lease = 0
        self._seen_at = 0
        """The etcd revision at which the key was seen last."""
        self._decision: Take | Lead | None = None
        self._decided = asyncio.Event()
        self._followed: Key | None = None
        self._stream: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None

    @property
    def leader_address(self) -> str:
        """The leader's address, host:port; empty if nobody leads."""
        return self.succession.key.address if self.succession.key is not None else ""

    @asynccontextmanager
    async def copying(self) -> AsyncIterator[asyncio.Task[None]]:
        """Copies the ledger until a leader took the copy; yields the task that does it."""
        self.replica = Replica(self._client, self._keys)
        task = asyncio.create_task(self.replica.follow(self._on_item), name="replica")
        try:
            yield task
        finally:
            await _end(task)

    async def turn_comes(self, copying: asyncio.Task[None], lease: Lease) -> Take | Lead | None:
        """Returns when the key is to be taken, or is one's own; None if the lease is lost.

        Raises EtcdError and RecordError.
        """
        self._lease, self._decision = lease.id, None
        self._decided.clear()
        ticking = asyncio.create_task(self._tick(), name="standby-tick")
        looking = asyncio.create_task(self._look_again(), name="standby-look")
        deciding = asyncio.create_task(self._decided.wait())
        losing = asyncio.create_task(lease.lost.wait())
        waiting = {ticking, looking, deciding, losing, copying}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._decision is None:
                for task in (ticking, looking, copying):
                    if task.done():
                        task.result()
            return self._decision
        finally:
            self._lease = 0
            for one in (ticking, looking, deciding, losing, self._stream, self._probe):
                await _end(one)
            self._stream = self._probe = self._followed = None

    def answered(self, age_s: float) -> None:
        """A Router heard of the leader so long ago."""
        self._tell(Answered(age_s))

    def served(self) -> None:
        """This Manager's own term came to serve."""
        self._tell(Turned())

    def failed(self) -> None:
        """The key was not taken."""
        self._tell(Failed())

    # What is seen.

    def _tell(self, event: Event) -> None:
        command = self.succession.handle(event, asyncio.get_running_loop().time())
        match command:
            case Ask():
                self._tell(Asked(self._ask()))
            case Probe():
                log.warning("the leader seems dead", why=self.succession.why)
                self._probe = asyncio.create_task(self._try_etcd(), name="standby-probe")
            case Take() | Lead():
                self._decision = command
                self._decided.set()
            case None:
                pass

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._tell(Tick())

    async def _look_again(self) -> None:
        while True:
            with contextlib.suppress(EtcdUnavailable):
                item, revision = await self._client.get(self._keys.leader)
                self._on_item(revision, item)
            await asyncio.sleep(LOOK_S)

    def _on_item(self, revision: int, item: KeyValue | None) -> None:
        if revision < self._seen_at:
            return
        self._seen_at = revision
        key, before = None, self.leader_address
        if item is not None:
            record = decode(LeaderRecord, item.key, item.value)
            key = Key(item.mod_revision, record.incarnation, record.address)
        self._tell(Seen(key))
        if self.leader_address != before:
            self.on_key()
        if key != self._followed and self._lease:
            self._followed = key
            if self._stream is not None:
                self._stream.cancel()
                self._stream = None
            if key is not None and key.incarnation != self._record.incarnation:
                log.info("another Manager leads", revision=key.revision, address=key.address)
                self._stream = asyncio.create_task(self._follow(key), name="standby-stream")

    async def _try_etcd(self) -> None:
        try:
            await self._client.txn(timeout_s=PROBE_S)
        except EtcdError as exc:
            log.info("etcd does not answer a standby's probe", why=str(exc))
            self._tell(Probed(False))
        else:
            self._tell(Probed(True))

    # The stream to the leader.

    async def _follow(self, key: Key) -> None:
        own = key.address == self._record.address  # who listens there has the port: it is dead
        while True:
            if not own:
                with contextlib.suppress(*_CUT):
                    await self._live(key)
            self._tell(Broken())
            if own or await refuses(key.address):
                self._tell(Refused())
            await asyncio.sleep(RETRY_S)

    async def _live(self, key: Key) -> None:
        async with grpc.aio.insecure_channel(key.address, options=_OPTIONS) as channel:
            call = StandbyServiceStub(channel).Follow()
            async with asyncio.timeout(OPEN_S):
                await call.write(self._standing(0))
            while True:
                async with asyncio.timeout(QUIET_S):
                    beat = await call.read()
                if not isinstance(beat, FollowResponse):
                    return
                commit_s = beat.commit_age.ToTimedelta().total_seconds()
                self._tell(Beat(beat.term.revision, beat.turn, commit_s))
                async with asyncio.timeout(OPEN_S):
                    await call.write(self._standing(self._lease))

    def _standing(self, lease: int) -> FollowRequest:
        """With a lease, and so ready, from the leader's first beat on."""
        return FollowRequest(
            manager=self._record.id,
            incarnation=self._record.incarnation,
            address=self._record.address,
            lease=lease,
            revision=self.replica.revision,
        )


async def _end(task: asyncio.Task[None] | asyncio.Task[bool] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # seen: who waited for it has raised it, or does not care any more
