"""The chain of a leader's commits: every write compares its term and the turn before it.

A write that got no answer may still be applied. Only another link of the same chain settles what
became of it: either the lost one came before and is seen, or it compares a turn that is gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

import structlog

from slotway.errors import SlotwayError
from slotway.etcd import (
    Client,
    Compare,
    Delete,
    EtcdUnavailable,
    Get,
    KeyValue,
    Operation,
    OutcomeUnknown,
    Put,
    TxnResult,
)
from slotway.records import Keys, R, Record, decode

log = structlog.get_logger(__name__)

ATTEMPTS = 3
"""How often a write that surely was not applied is tried, and one that settles another; every
attempt tries all endpoints. Then the leader resigns."""
PAUSE_S = 0.2

Term = tuple[int, int]


class DeposedError(SlotwayError):
    """Another Manager leads, or leadership cannot be exercised: nothing may be sent any more."""

    reason = "NO_LEADER"


class Outcome(Enum):
    """What became of a write."""

    APPLIED = auto()
    CHANGED = auto()
    """Not applied, although this leader leads: a record was changed by hand, or a fence of its own
    was applied late. All has to be read anew, with a fence."""
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Records:
    """Everything below the containers' and the actions' prefixes, and the count of addresses, at a
    revision of the chain."""

    revision: int
    containers: tuple[KeyValue, ...]
    actions: tuple[KeyValue, ...]
    addresses: tuple[KeyValue, ...] = ()
    decoded: Mapping[str, tuple[int, Record]] = field(default_factory=dict)
    """By key: what is decoded already, and of which revision. It is the reader's from now on."""

    def read(self, kind: type[R], item: KeyValue) -> R:
        """The record in `item`; raises RecordError."""
        revision, record = self.decoded.get(item.key, (0, None))
        if revision == item.mod_revision and isinstance(record, kind):
            return record
        return decode(kind, item.key, item.value)


class Chain:
    """Writes for one term. Not to be used by two tasks at once."""

    def __init__(self, client: Client, keys: Keys, term: Term) -> None:
        self._client, self._keys, self._term = client, keys, term

    async def write(
        self,
        turn: int,
        operations: list[Put | Delete],
        compare: list[Compare],
    ) -> tuple[Outcome, int]:
        """One link: the operations if everything compares. Returns the outcome and the revision.

        Raises DeposedError if another one leads, or etcd does not take the write at all.
        """
        guards = [*self._guards(turn), *compare]
        success = [Put(self._keys.turn, _number(turn)), *operations]
        failure: list[Operation] = [Get(self._keys.leader)]
        for attempt in range(ATTEMPTS):
            try:
                result = await self._client.txn(guards, success, failure)
            except OutcomeUnknown as exc:
                log.warning("a commit was not answered", turn=turn, why=str(exc))
                return Outcome.UNKNOWN, 0
            except EtcdUnavailable as exc:
                await self._pause(attempt, exc)
                continue
            if result.succeeded:
                return Outcome.APPLIED, result.revision
            if [item.mod_revision for item in result.found[0]] != [self._term[1]]:
                raise DeposedError("another Manager took the leader key")
            return Outcome.CHANGED, 0
        raise AssertionError("unreachable")

    async def fence(self) -> Records:
        """A link that compares no turn, and reads everything: after it no older write can apply.

        Raises DeposedError if another one leads, or nobody answers.
        """
        result = await self._fence(
            [
                Get(self._keys.containers, prefix=True),
                Get(self._keys.actions, prefix=True),
                Get(self._keys.addresses),
            ]
        )
        _, containers, actions, addresses = result.found
        return Records(result.revision, containers, actions, addresses)

    async def begin(self) -> tuple[int, tuple[KeyValue, ...]]:
        """A fence for who follows etcd: a copy that has reached the revision that is returned has
        everything of all older terms. It reads only the count of addresses, which no commit
        compares. Raises DeposedError as `fence` does.
        """
        result = await self._fence([Get(self._keys.addresses)])
        return result.revision, result.found[1]

    async def _fence(self, reads: list[Get]) -> TxnResult:
        leads = Compare(self._keys.leader, mod_revision=self._term[1])
        success: list[Operation] = [Put(self._keys.turn, _number(0)), *reads]
        for attempt in range(ATTEMPTS):
            try:
                result = await self._client.txn([leads], success)
            except (OutcomeUnknown, EtcdUnavailable) as exc:
                await self._pause(attempt, exc)
                continue
            if not result.succeeded:
                raise DeposedError("another Manager took the leader key")
            return result
        raise AssertionError("unreachable")

    def _guards(self, turn: int) -> list[Compare]:
        return [
            Compare(self._keys.leader, mod_revision=self._term[1]),
            Compare(self._keys.turn, mod_revision=turn),
        ]

    async def _pause(self, attempt: int, exc: SlotwayError) -> None:
        log.warning("etcd does not take commits", attempt=attempt + 1, why=str(exc))
        if attempt + 1 == ATTEMPTS:
            raise DeposedError(f"etcd does not take commits: {exc}") from exc
        await asyncio.sleep(PAUSE_S * random.uniform(0.5, 1.5))


def _number(turn: int) -> bytes:
    """The turn key's value, for people: the chain is its revision."""
    return str(turn).encode()
