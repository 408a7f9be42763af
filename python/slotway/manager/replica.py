"""A standby's copy of the ledger: everything of the cluster in etcd, followed and decoded.

It lags by what etcd's watch lags. A leader that has won the key and put the turn key waits until
the copy has reached that revision: nothing of an older term can be written after it, and so the
copy is whole. It may be newer, if records were written by hand: every commit compares them anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import aclosing

from slotway.etcd import Client, KeyValue, View
from slotway.manager.chain import Records
from slotway.records import Keys, Record, RecordError, decode
from slotway.v1.ledger_pb2 import ActionRecord, ContainerRecord


class Replica:
    """One use: from standing by until the records are taken."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._view = View(client, keys.prefix)
        self._keys = keys
        self._decoded: dict[str, tuple[int, Record]] = {}
        self._changed = asyncio.Event()
        self._taken = False

    @property
    def revision(self) -> int:
        """Up to which etcd revision it goes; 0: nothing was read yet."""
        return self._view.revision

    async def follow(self, on_leader: Callable[[int, KeyValue | None], None]) -> None:
        """Follows etcd until the records are taken; waits while etcd is away.

        `on_leader` is told what is on the leader key at a revision, at first and when it changes.
        Raises EtcdError and WrongCluster.
        """
        first = True
        async with aclosing(self._view.follow()) as changes:
            async for change in changes:
                if self._taken:
                    return
                for item in change.put:
                    self._decode(item)
                for key in change.gone:
                    self._decoded.pop(key, None)
                touched = {*change.gone, *(item.key for item in change.put)}
                if first or self._keys.leader in touched:
                    first = False
                    on_leader(change.revision, self._view.items.get(self._keys.leader))
                self._changed.set()
                self._changed = asyncio.Event()

    def _decode(self, item: KeyValue) -> None:
        """What cannot be decoded is found by whoever comes to lead with it."""
        with contextlib.suppress(RecordError):
            if item.key.startswith(self._keys.containers):
                record: Record = decode(ContainerRecord, item.key, item.value)
            elif item.key.startswith(self._keys.actions):
                record = decode(ActionRecord, item.key, item.value)
            else:
                return
            self._decoded[item.key] = (item.mod_revision, record)

    async def take(
        self, revision: int, addresses: tuple[KeyValue, ...], timeout_s: float
    ) -> Records | None:
        """The records at `revision`, for the caller to keep; None if that takes too long.

        The count of addresses is not this copy's: no commit would find it to be wrong.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self.revision < revision:
                    await self._changed.wait()
        except TimeoutError:
            return None
        finally:
            self._taken = True
        items = self._view.items.values()
        return Records(
            revision,
            tuple(item for item in items if item.key.startswith(self._keys.containers)),
            tuple(item for item in items if item.key.startswith(self._keys.actions)),
            addresses,
            self._decoded,
        )
