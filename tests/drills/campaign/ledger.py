"""A witness of the ledger: it reads every revision of etcd's history of the cluster.

It knows nothing of Managers but what they wrote, and sees what none may: more granted than there
is (I1), a commit that is not chained to the one before it, or a record of a term that did not lead
(I3).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json

from slotway.etcd import Access, Client, Compacted
from slotway.etcd.model import Event
from slotway.records import Keys


class LedgerWitness:
    """Follows etcd for as long as it is entered."""

    def __init__(self, endpoints: tuple[str, ...], cluster: str) -> None:
        self._access, self._keys = Access(endpoints), Keys(cluster)
        self.faults: list[str] = []
        self.revisions = self.turns = self.leaders = self.gaps = 0
        """How many were seen."""
        self._turn = self._leads = 0
        self._epoch = "1"
        self._known: set[str] = set()

    async def __aenter__(self) -> LedgerWitness:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def alive(self) -> bool:
        """Whether it still looks."""
        return not self._task.done()

    async def _follow(self) -> None:
        start = 1
        async with Client(self._access) as etcd:
            while True:
                try:
                    await self._watch(etcd, start)
                except Compacted:  # it was behind: what lies between is not known
                    start = await self._list(etcd) + 1
                    self.gaps += 1

    async def _list(self, etcd: Client) -> int:
        """Begins anew with what there is; its revision."""
        listing = await etcd.list(self._keys.prefix)
        revisions = {item.key: item.mod_revision for item in listing.items}
        self._leads = revisions.get(self._keys.leader, 0)
        self._turn = revisions.get(self._keys.turn, 0)
        self._known = {key for key in revisions if key.startswith(self._keys.containers)}
        return listing.revision

    async def _watch(self, etcd: Client, start: int) -> None:
        async with etcd.watch(self._keys.prefix, start) as watch:
            async for batch in watch:
                by_revision = itertools.groupby(batch.events, lambda one: one.item.mod_revision)
                for revision, events in by_revision:
                    self.take(revision, list(events))

    def take(self, revision: int, events: list[Event]) -> None:
        """What one revision changed."""
        self.revisions += 1
        keys = {event.item.key: event for event in events}
        if leader := keys.get(self._keys.leader):
            self._leads = 0 if leader.deleted else revision
            self.leaders += not leader.deleted
        if ledger := keys.get(self._keys.ledger):
            self._epoch = str(json.loads(ledger.item.value).get("epoch", 1))
        turn = keys.get(self._keys.turn)
        if turn is not None and not turn.deleted:
            self._take_turn(revision, int(turn.item.value))
        for key, event in keys.items():
            if not key.startswith((self._keys.containers, self._keys.actions)):
                continue
            if turn is None:
                self.faults.append(f"I3: revision {revision} changes {key} outside of the chain")
            if key.startswith(self._keys.containers):
                self._take_container(revision, key, event)

    def _take_turn(self, revision: int, before: int) -> None:
        self.turns += 1
        if before not in (0, self._turn):
            self.faults.append(
                f"I3: the turn of revision {revision} follows {before}, and not {self._turn}"
            )
        if not self._leads:
            self.faults.append(f"I3: revision {revision} is a turn, and nobody leads")
        self._turn = revision

    def _take_container(self, revision: int, key: str, event: Event) -> None:
        if event.deleted:
            self._known.discard(key)
            return
        record = json.loads(event.item.value)
        shares, capacity = record.get("shares", {}), record.get("capacity", 0)
        if sum(shares.values()) > capacity:
            self.faults.append(f"I1: revision {revision} grants {shares} of {key}, C={capacity}")
        term = f"{self._epoch}.{self._leads}"
        if key not in self._known and record["term"] != term:
            self.faults.append(
                f"I3: {key} was recorded in revision {revision} by {record['term']}; {term} led"
            )
        self._known.add(key)
