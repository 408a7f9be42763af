"""A copy of all keys below a prefix that follows etcd: listed, then watched, listed anew at times.

The copy may lag, and is for looking only: what matters is decided in transactions. Events are
applied by their revision; a listing replaces the copy; what changed is told either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from slotway.etcd.client import Client
from slotway.etcd.errors import Compacted, EtcdUnavailable
from slotway.etcd.model import Batch, Event, KeyValue, Listing
from slotway.etcd.patience import Patience

log = structlog.get_logger(__name__)

REREAD_S = 60.0
"""How often the whole prefix is listed anew although nothing seems wrong."""


@dataclass(frozen=True, slots=True)
class Change:
    """The view went on to `revision`: these keys were put, these are gone."""

    revision: int
    put: tuple[KeyValue, ...] = ()
    gone: tuple[str, ...] = ()


class View:
    """All keys below `prefix` as of `revision` (0: not read yet)."""

    def __init__(self, client: Client, prefix: str, reread_s: float = REREAD_S):
        self.items: dict[str, KeyValue] = {}
        self.revision = 0
        self._client = client
        self._prefix = prefix
        self._reread_s = reread_s

    async def follow(self) -> AsyncGenerator[Change]:
        """Reads the prefix and follows it for ever; yields after each change was applied.

        The first change is the first listing, even if it is empty. Waits while etcd cannot be
        reached. Raises EtcdError and WrongCluster. Close it (`aclosing`) to end the watch.
        """
        while True:
            yield self.replace(await self._list())
            try:
                async with aclosing(self._watch()) as batches:
                    async for batch in batches:
                        yield self.apply(batch)
            except Compacted as exc:
                log.info("etcd view lists anew", prefix=self._prefix, why=str(exc))

    async def _watch(self) -> AsyncGenerator[Batch]:
        """Batches, until it is time to list anew."""
        now = asyncio.get_running_loop().time
        until = now() + self._reread_s
        async with self._client.watch(self._prefix, self.revision + 1) as watch:
            while (left_s := until - now()) > 0:
                try:
                    async with asyncio.timeout(left_s):
                        batch = await anext(watch)
                except TimeoutError:
                    return
                yield batch

    async def _list(self) -> Listing:
        patience = Patience(f"to read {self._prefix}")
        while True:
            try:
                listing = await self._client.list(self._prefix)
            except (EtcdUnavailable, Compacted) as exc:
                await patience.wait(exc)
            else:
                patience.over()
                return listing

    def replace(self, listing: Listing) -> Change:
        """Takes a listing in the place of all that was known."""
        assert listing.revision >= self.revision, "a linearizable read does not go back"
        items = {one.key: one for one in listing.items}
        put = [
            one
            for one in listing.items
            if one.key not in self.items or self.items[one.key].mod_revision != one.mod_revision
        ]
        gone = [key for key in self.items if key not in items]
        self.items, self.revision = items, listing.revision
        return Change(listing.revision, tuple(put), tuple(gone))

    def apply(self, batch: Batch) -> Change:
        """Applies events; those that are not newer than the view were known already."""
        last: dict[str, Event] = {
            event.item.key: event
            for event in batch.events
            if event.item.mod_revision > self.revision
        }
        put = [event.item for event in last.values() if not event.deleted]
        gone = [key for key, event in last.items() if event.deleted and key in self.items]
        self.items.update((one.key, one) for one in put)
        self._remove(gone)
        self.revision = max(self.revision, batch.revision)
        return Change(self.revision, tuple(put), tuple(gone))

    def _remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            del self.items[key]
