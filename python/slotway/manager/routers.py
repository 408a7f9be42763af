"""The Routers that this Manager knows: their streams, their facts, and whether they are gone.

A router without a stream may be alive and serving. Only its process's end permits the kill of the
containers that it alone used: it is taken for gone when its address refused connections, or a newer
incarnation of its name has a stream, twice in probes at least a second apart.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from slotway.errors import SlotwayError
from slotway.manager.facts import Facts
from slotway.manager.inbox import Inbox, Probed
from slotway.manager.sessions import Session

SILENT_PERIODS = 3
"""Facts older than so many periods are not acted upon, and a name is free again."""
SILENT_S_MIN = 0.6
"""A router at rest reports every third period, and a busy machine may delay it by as much again."""
STUCK_PERIODS = 2
"""A router that leaves raises unconfirmed for so many periods, and that minimum at least, gets no
more of them."""
RESTARTED_S = 120.0
"""For so long a new incarnation of a name gets slots for its demand only."""
PROBE_S = 1.0
PROBES = 2
FORGET_S = 600.0
"""A router without stream or shares is forgotten after this."""


@dataclass(slots=True, eq=False)
class Router:
    """One incarnation. Times are the loop's seconds."""

    id: str
    name: str
    address: str
    facts: Facts
    session: Session | None = None
    """Its newest stream; None if that is closed."""
    leaving: bool = False
    vanished: bool = False
    restarted_until: float = 0.0
    was_fresh: bool = False
    """Whether its facts counted when last looked at."""
    asked_at: float = -math.inf
    """When it was asked last what idles there."""
    probe: asyncio.Task[None] | None = field(default=None, repr=False)
    probes: int = 0
    """Probes in a row that found it gone."""


class Routers:
    """All incarnations, by id."""

    def __init__(self, inbox: Inbox, period_s: float, clock: Callable[[], float]) -> None:
        self._inbox, self._clock = inbox, clock
        self.period_s = period_s
        self.by_id: dict[str, Router] = {}

    def get(self, router: str) -> Router | None:
        """None if it never spoke to this Manager."""
        return self.by_id.get(router)

    def open(self, session: Session, *, has_shares: bool) -> Router:
        """A stream was opened; the router's older stream is over.

        Raises SlotwayError if another incarnation of the name is alive. One that has shares on the
        ledger is never refused: it has to be heard.
        """
        now = self._clock()
        others = [
            other
            for other in self.by_id.values()
            if other.name == session.name and other.id != session.router
        ]
        if not has_shares and any(self.fresh(other, now) and other.session for other in others):
            raise SlotwayError(
                f"the Router name {session.name!r} is in use by another process that reports; "
                "give each Router a name of its own",
                reason="NAME_TAKEN",
            )
        router = self.by_id.get(session.router)
        if router is None:
            router = Router(session.router, session.name, session.address, Facts(now))
            if others:
                router.restarted_until = now + RESTARTED_S
            self.by_id[router.id] = router
        elif router.session is not None:
            router.session.close()
        router.session, router.facts = session, Facts(now)
        router.name, router.address = session.name, session.address
        router.vanished, router.probes = False, 0
        self._stop_probing(router)
        return router

    def close(self, session: Session) -> Router | None:
        """A stream is over; returns the router if it was its newest."""
        router = self.by_id.get(session.router)
        if router is None or router.session is not session:
            return None
        router.session = None
        self._start_probing(router)
        return router

    def probed(self, name: str, *, gone: bool) -> Router | None:
        """A probe's result; returns the router if it is now known to be gone."""
        router = self.by_id.get(name)
        if router is None or router.session is not None:
            return None
        replaced = any(
            other.name == router.name and other.id != router.id and other.session is not None
            for other in self.by_id.values()
        )
        router.probes = router.probes + 1 if gone or replaced else 0
        if router.probes < PROBES or router.vanished:
            return None
        router.vanished = True
        self._stop_probing(router)
        return router

    def fresh(self, router: Router, now: float) -> bool:
        """Whether its facts are young enough to act upon."""
        return now - router.facts.reported_at < max(SILENT_S_MIN, SILENT_PERIODS * self.period_s)

    def stuck(self, router: Router, now: float) -> bool:
        """Whether it should have confirmed raises, and has not."""
        since = router.facts.unconfirmed_since()
        patience_s = max(SILENT_S_MIN, STUCK_PERIODS * self.period_s)
        return since is not None and now - since > patience_s

    def forget(self, holders: set[str]) -> None:
        """Drops those of which nothing is left."""
        now = self._clock()
        for router in list(self.by_id.values()):
            old = now - router.facts.reported_at > FORGET_S
            if old and router.session is None and router.id not in holders:
                self._stop_probing(router)
                del self.by_id[router.id]

    def stop(self) -> None:
        """Ends all probing."""
        for router in self.by_id.values():
            self._stop_probing(router)

    def _start_probing(self, router: Router) -> None:
        if router.probe is None:
            router.probe = asyncio.create_task(
                self._probe(router.id, router.address), name="router-probe"
            )

    def _stop_probing(self, router: Router) -> None:
        if router.probe is not None:
            router.probe.cancel()
            router.probe = None

    async def _probe(self, router: str, address: str) -> None:
        host, _, port = address.rpartition(":")
        while True:
            gone = False
            try:
                async with asyncio.timeout(PROBE_S):
                    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
                writer.close()
            except ConnectionRefusedError:
                gone = True
            except (OSError, TimeoutError, ValueError):
                pass
            self._inbox.put(Probed(router, gone))
            await asyncio.sleep(PROBE_S)
