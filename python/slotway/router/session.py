"""The Router's sessions with all Managers (DESIGN §3.4): what is obeyed, acknowledged and reported.

Exactness is the data plane's: it refuses what is stale, and only it says what may be acknowledged.
This module carries its words to every Manager's newest stream and back, and none of it is on a
warm request's path. A session that fails costs nothing but itself.

Acknowledgements are not repeated after a Hello: a Manager counts only those of orders that it sent
after the Hello, and the Hello itself says what the older ones said.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from typing import TypeVar

import structlog

from slotway.router import wire
from slotway.router.attachment import Attachment, Due, Identity, StaleStreamError
from slotway.router.plane import Plane, Term
from slotway.v1.manager_pb2 import (
    AttachRequest,
    AttachResponse,
    Container,
    ShareOrder,
    Welcome,
)

_log = structlog.get_logger()
_K = TypeVar("_K")

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
REPORT_SECONDS_MIN = 0.03
"""Between two reports of demand that changes but did not leave zero."""
REST_PERIODS = 3
"""Between two reports of a Router that has nothing to say."""
SILENT_PERIODS = 3
SILENT_SECONDS_MIN = 1.0
"""A leader that is silent for so long may have been replaced: its lists of peers are too old."""
NEVER_SECONDS = 86_400.0
"""The age of a leader that was never heard."""
TROUBLES_MAX = 10_000
GIVE_BACK_SECONDS = 1.0
"""Between two looks at what has idled."""
LEAVE_POLL_SECONDS = 0.02


class Session:
    """Attachments to all Managers, and the one of them that leads."""

    def __init__(
        self,
        plane: Plane,
        identity: Identity,
        *,
        give_back_ms: int,
        on_leader: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.leader: Attachment | None = None
        """The Manager of the newest term, once it has greeted and for as long as its stream
        lasts."""
        self.term: Term | None = None
        self._plane = plane
        self._identity = identity
        self._give_back_ms = give_back_ms
        self._on_leader = on_leader
        self._attachments: dict[tuple[str, str], tuple[Attachment, asyncio.Task[None]]] = {}
        self._known: dict[str, Container] = {}
        """What is held, as it was described: another stream's Manager may not describe it again."""
        self._troubles: dict[tuple[str, str], int] = {}
        """By (container, kind): slots since the leader was told last."""
        self._overruns: dict[str, int] = {}
        """Overruns of containers that have not ended: the next leader has to hear of them too."""
        self._streams = itertools.count(1)
        self._led_at: float | None = None
        """When the leader of the newest term was heard last; the loop's seconds. None: never."""
        self._reported_at = 0.0
        self._report_timer: asyncio.TimerHandle | None = None
        self._peers: set[str] = set()
        """Actions that have peers."""
        self._peers_dropped = False
        self._leaving = False

    async def run(self, members: AsyncIterable[Mapping[str, str]]) -> None:
        """Follows the lists of Managers (id to address) for ever; cancelling it ends all
        streams."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._plane.fileno(), self._take_events)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tick())
                async for listed in members:
                    self._follow(tasks, listed)
        finally:
            loop.remove_reader(self._plane.fileno())
            if self._report_timer is not None:
                self._report_timer.cancel()

    async def leave(self, seconds: float) -> bool:
        """Gives all shares back and takes leave of every Manager; False if that took longer than
        `seconds`.

        The requests must have ended before. Slots that a leader grants before it knows are given
        back as well.
        """
        self._leaving = True
        for attachment in self._open():
            attachment.due.leaving = True
        try:
            async with asyncio.timeout(seconds):
                await self._give_all_back()
                await asyncio.sleep(self.leader.period if self.leader is not None else 0)
                await self._give_all_back()
                tasks = [task for _, task in self._attachments.values()]
                for attachment, _ in self._attachments.values():
                    attachment.finish()
                if tasks:
                    await asyncio.wait(tasks)
        except TimeoutError:
            return False
        return True

    async def _give_all_back(self) -> None:
        while True:
            self._plane.give_back(0)
            self._take_events()
            if not any(held or running for _, _, held, running in self._plane.holdings()):
                return
            await asyncio.sleep(LEAVE_POLL_SECONDS)

    def _follow(self, tasks: asyncio.TaskGroup, listed: Mapping[str, str]) -> None:
        for key, (attachment, task) in list(self._attachments.items()):
            attachment.wanted = listed.get(key[0]) == key[1]
            if task.done():
                del self._attachments[key]
        for key in listed.items():
            if key not in self._attachments and not self._leaving:
                attachment = Attachment(self, self._identity, *key)
                self._attachments[key] = (attachment, tasks.create_task(attachment.run()))

    def _open(self) -> list[Attachment]:
        return [attachment for attachment, _ in self._attachments.values() if attachment.channel]

    # What attachments ask and tell.

    def next_stream(self) -> int:
        """See `attachment.Owner`."""
        return next(self._streams)

    def opened(self, attachment: Attachment) -> None:
        """See `attachment.Owner`."""
        self._plane.open_stream(attachment.manager, attachment.stream)

    def closed(self, attachment: Attachment) -> None:
        """See `attachment.Owner`."""
        self._plane.close_stream(attachment.manager, attachment.stream)
        if attachment is self.leader:
            self._lead(None)

    def heard(self, attachment: Attachment, message: AttachResponse) -> None:
        """See `attachment.Owner`."""
        if message.ask_leader_age:
            attachment.due.leader_age = True
            attachment.wake()
        term = wire.term(message.term)
        if message.HasField("welcome"):
            self._greet(attachment, term, message.welcome)
        if attachment.term != term or term != self.term:
            return
        self._led_at = asyncio.get_running_loop().time()
        attachment.turn = message.turn
        if self._peers_dropped and not message.HasField("welcome"):
            self._peers_dropped = False
            raise StaleStreamError  # a new Hello has all lists of peers sent again
        for order in message.orders:
            self._obey(attachment, term, order)
        for container in message.ended_containers:
            attachment.told.pop(container, None)
            self._known.pop(container, None)
            self._overruns.pop(container, None)
            how = message.endings.get(container, "")
            self._plane.ended(attachment.manager, attachment.stream, term, container, how)
        for peers in message.peers:
            with _refusal_logged(attachment, peers.action):
                self._plane.peers(
                    peers.action, [(p.incarnation, p.address, p.waiting) for p in peers.peers]
                )
                (self._peers.add if peers.peers else self._peers.discard)(peers.action)
        for refusal in message.refusals:
            retry_ms = -1
            if refusal.HasField("retry_delay"):
                retry_ms = refusal.retry_delay.ToMilliseconds()
            with _refusal_logged(attachment, refusal.action):
                self._plane.refuse(refusal.action, refusal.reason, refusal.message, retry_ms)
        if message.ask_demand:
            self._report_at(0)

    def _greet(self, attachment: Attachment, term: Term, welcome: Welcome) -> None:
        if welcome.protocol_min > PROTOCOL_MAX or welcome.protocol_max < PROTOCOL_MIN:
            _log.error(
                "no session protocol in common: upgrade the older side",
                manager=attachment.manager,
                theirs=(welcome.protocol_min, welcome.protocol_max),
                ours=(PROTOCOL_MIN, PROTOCOL_MAX),
            )
            return
        holdings = self._plane.welcome(attachment.manager, attachment.stream, term)
        if holdings is None:
            return
        held = {name for name, _, _ in holdings}
        self._known = {name: known for name, known in self._known.items() if name in held}
        attachment.term = self.term = term
        attachment.period = welcome.period.ToTimedelta().total_seconds() or attachment.period
        attachment.due = Due(hello=(term, holdings), report=True, leaving=self._leaving)
        self._troubles.update({(name, "overrun"): slots for name, slots in self._overruns.items()})
        attachment.wake()
        self._lead(attachment)

    def _obey(self, attachment: Attachment, term: Term, order: ShareOrder) -> None:
        name = order.container_id
        if order.HasField("container"):
            attachment.told[name] = self._known[name] = order.container
        container = attachment.told.get(name) or self._known.get(name)
        if container is None and order.target > 0:
            _log.error("an order for what was not described", container=name)
            return
        with _refusal_logged(attachment, name):
            self._plane.order(
                attachment.manager,
                attachment.stream,
                (*term, order.counter),
                name,
                order.target,
                *wire.described(container or wire.UNKNOWN),
            )
        if container is None:
            # A target of zero needs no description. The data plane forgets what it does not hold
            # when it is asked, before an order comes that describes it truly.
            self._take_events()

    def compose(self, attachment: Attachment) -> AttachRequest | None:
        """See `attachment.Owner`."""
        due, attachment.due = attachment.due, Due()
        message = AttachRequest(
            acknowledgements=wire.acknowledgements(due.acknowledgements), leaving=due.leaving
        )
        if due.hello is not None:
            message.hello.CopyFrom(wire.hello(*due.hello, PROTOCOL_MIN, PROTOCOL_MAX))
        if due.leader_age:
            now = asyncio.get_running_loop().time()
            age_s = NEVER_SECONDS if self._led_at is None else now - self._led_at
            message.leader_age.FromMilliseconds(int(age_s * 1000))
        if due.report and attachment is self.leader:
            # Taken here, so that `obeyed` is what the demand had seen.
            message.demand.extend(wire.demand(self._plane.demand()))
            obeyed = self._plane.obeyed
            if obeyed is not None:
                message.obeyed.CopyFrom(wire.version_message(obeyed))
            message.turn = attachment.turn
            message.troubles.extend(wire.troubles(self._troubles))
            self._troubles.clear()
            self._reported_at = asyncio.get_running_loop().time()
        elif not message.ByteSize():
            return None
        return message

    # What the data plane tells, and the clock.

    def _take_events(self) -> None:
        events = self._plane.events()
        for container, holding, version in events.acknowledgements:
            for attachment in self._open():
                attachment.due.acknowledgements[container] = (holding, version)
                attachment.wake()
        for container, kind, slots in events.troubles:
            _count(self._troubles, (container, kind), slots)
            if kind == "overrun":
                _count(self._overruns, container, slots)
        if events.demand_rose or events.troubles:
            self._report_at(0)
        elif events.demand_changed:
            self._report_at(self._reported_at + REPORT_SECONDS_MIN)

    def _report_at(self, when: float) -> None:
        """Reports at the loop's time `when`, or now if that has passed."""
        loop = asyncio.get_running_loop()
        if self._report_timer is not None:
            if self._report_timer.when() <= when:
                return
            self._report_timer.cancel()
            self._report_timer = None
        if when <= loop.time():
            self._report()
        else:
            self._report_timer = loop.call_at(when, self._report)

    def _report(self) -> None:
        self._report_timer = None
        if self.leader is not None:
            self.leader.due.report = True
            self.leader.wake()

    def _lead(self, leader: Attachment | None) -> None:
        if leader is not None:
            self._peers_dropped = False
        if leader is not self.leader:
            self.leader = leader
            self._on_leader(leader is not None)

    async def _tick(self) -> None:
        """Every period: a report if there is something to say, or none was made for some; a
        look at how long the leader is silent; and what idled is given back."""
        loop = asyncio.get_running_loop()
        period, heard_at, given_back_at = 0.5, loop.time(), loop.time()
        while True:
            await asyncio.sleep(period)
            now = loop.time()
            if self.leader is not None:
                period = self.leader.period
                heard_at = max(heard_at, self.leader.heard_at)
                self._take_events()
                if now - self._reported_at >= (REST_PERIODS - 0.5) * period:
                    self._report()
                if now - given_back_at >= GIVE_BACK_SECONDS and not self._leaving:
                    # Only to a leader, which can grant it again: without one, what is held keeps
                    # serving.
                    given_back_at = now
                    self._plane.give_back(self._give_back_ms)
            if self._peers and now - heard_at > max(SILENT_PERIODS * period, SILENT_SECONDS_MIN):
                self._peers.clear()
                self._peers_dropped = True
                self._plane.drop_peers()


def _count(counts: dict[_K, int], key: _K, slots: int) -> None:
    if len(counts) < TROUBLES_MAX or key in counts:
        counts[key] = counts.get(key, 0) + slots


@contextlib.contextmanager
def _refusal_logged(attachment: Attachment, what: str) -> Iterator[None]:
    """What the data plane finds out of range is left out, and the rest of the message obeyed."""
    try:
        yield
    except ValueError as error:
        _log.error("out of range", manager=attachment.manager, of=what, why=str(error))
