"""The durable store of activations.

Every method is one transaction, on disk when it returns; if it raises, nothing counts as done.
Rows are locked and read, `state` decides, and what it decided is written. The methods block, and
may be called by any number of threads and processes at once. The time is an argument: Routers'
clocks may differ, which shifts when something is tried again, and nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from slotway.activations import state
from slotway.activations.activation import (
    Activation,
    Claim,
    Finish,
    Outcome,
    Submission,
    Waiting,
    Want,
)
from slotway.activations.bell import QUEUED_CHANNEL, Bell, open_bell
from slotway.activations.database import Database
from slotway.activations.migrate import migrate
from slotway.activations.rows import STANDING, activation_of, move, row_of, standing_of, write
from slotway.activations.schema import activation, idempotency, is_dead, is_done, is_queued
from slotway.activations.state import Policy, Standing, State

BATCH_MAX = 1_000
"""Activations that one call may concern."""
ACTIONS_MAX = 10_000
"""Actions that `waiting` tells of at most, in the order of their names."""

# From one action to the next by the index, so that depth does not count.
_WAITING = sa.text("""
    WITH RECURSIVE head(action) AS (
        SELECT min(action) FROM activation WHERE state = 0
        UNION ALL
        SELECT (SELECT min(action) FROM activation WHERE state = 0 AND action > head.action)
        FROM head WHERE head.action IS NOT NULL
    ), counted AS (
        SELECT action, (
            SELECT count(*) FROM (
                SELECT 1 FROM activation
                WHERE state = 0 AND action = head.action AND due_at_ms <= :now LIMIT :each
            ) AS due
        ) AS count, (
            SELECT min(due_at_ms) FROM activation WHERE state = 0 AND action = head.action
        ) AS due_at_ms
        FROM head WHERE action IS NOT NULL LIMIT :actions
    )
    SELECT action, count, due_at_ms FROM counted WHERE count > 0
""")


class Store:
    """An opened store. `close` when no method runs any more."""

    def __init__(self, url: str, policy: Policy | None = None) -> None:
        """Opens it, and creates or upgrades its tables. See `Database` and `migrate` for the
        errors."""
        self.policy = policy or Policy()
        self._database = Database(url)
        try:
            with self._database.errors():
                migrate(self._database.engine)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    def bell(self) -> Bell:
        """Rings after something was queued, by whomever, from now on. StoreUnavailableError."""
        return open_bell(self._database)

    def submit(self, submissions: Sequence[Submission], now_ms: int) -> list[str]:
        """Queues them all or none; returns their ids in the same order. A known idempotency key
        queues nothing: the id is that of its activation."""
        assert 0 < len(submissions) <= BATCH_MAX
        with self._database.writes() as connection:
            ids = self._keyed(connection, submissions, now_ms)
            new = [one for one in submissions if ids.get((one.action, one.key), one.id) == one.id]
            standing = row_of(state.submitted(now_ms, self.policy))
            rows = [
                {
                    **standing,
                    "id": one.id,
                    "namespace": one.action.partition("/")[0],
                    "action": one.action,
                    "payload": one.payload,
                    "submitted_at_ms": now_ms,
                }
                for one in new
            ]
            if rows:
                connection.execute(sa.insert(activation), rows)
                self._ring(connection)
        return [ids.get((one.action, one.key), one.id) for one in submissions]

    def _keyed(
        self, connection: sa.Connection, submissions: Sequence[Submission], now_ms: int
    ) -> dict[tuple[str, str | None], str]:
        """The activation of each key: a new one where the key is new."""
        keyed: dict[tuple[str, str], Submission] = {}
        for one in submissions:
            if one.key is not None:
                keyed.setdefault((one.action, one.key), one)
        if not keyed:
            return {}
        dialect = sqlite if self._database.is_sqlite else postgresql
        rows = [
            {
                "action": one.action,
                "key": one.key,
                "activation_id": one.id,
                "kept_until_ms": now_ms + self.policy.key_kept_ms,
            }
            # Always in the same order: two transactions never wait for one another.
            for _, one in sorted(keyed.items())
        ]
        connection.execute(dialect.insert(idempotency).on_conflict_do_nothing(), rows)
        pair = sa.tuple_(idempotency.c.action, idempotency.c.key)
        found = sa.select(idempotency).where(pair.in_(list(keyed)))
        return {(row.action, row.key): row.activation_id for row in connection.execute(found)}

    def claim(self, wants: Sequence[Want], now_ms: int) -> list[Claim]:
        """Begins an attempt at up to so many of each action, those first that are due longest."""
        assert sum(want.count for want in wants) <= BATCH_MAX
        claims, moved = [], {}
        token = secrets.randbits(63)
        columns = (*STANDING, activation.c.payload, activation.c.submitted_at_ms)
        with self._database.writes() as connection:
            for want in wants:
                found = (
                    sa.select(*columns)
                    .where(is_queued, activation.c.action == want.action)
                    .where(activation.c.due_at_ms <= now_ms, activation.c.expires_at_ms > now_ms)
                    .order_by(activation.c.due_at_ms, activation.c.id)
                    .limit(want.count)
                    .with_for_update(skip_locked=True)
                )
                for row in connection.execute(found):
                    new = state.claimed(standing_of(row), token, want.lease_ms, now_ms)
                    moved[row.id] = new
                    told = (row.id, want.action, row.payload, token, new.attempts)
                    claims.append(Claim(*told, row.submitted_at_ms))
            write(connection, moved)
        return claims

    def finish(self, finishes: Sequence[Finish], now_ms: int) -> list[State | None]:
        """Ends attempts; returns for each the state that its activation is in now, or None for
        one that came late: another attempt had begun, or it is over. That one changed nothing.

        An activation with an outcome is done, and its outcome recorded, in the same transaction.
        """
        assert 0 < len(finishes) <= BATCH_MAX
        ended = {one.id: one for one in finishes}
        assert len(ended) == len(finishes), "an attempt ends once"

        def decide(old: Standing, id: str) -> Standing:
            one = ended[id]
            if isinstance(one.end, Outcome):
                return state.finished(old, one.token)
            return state.failed(old, one.token, one.end, now_ms, self.policy)

        outcomes = {one.id: one.end for one in finishes if isinstance(one.end, Outcome)}
        with self._database.writes() as connection:
            moved = move(connection, list(ended), decide, outcomes, now_ms)
        return [moved.get(one.id) for one in finishes]

    def lapse(self, now_ms: int, limit: int = BATCH_MAX) -> int:
        """Ends leases and ages that are over; returns how many, `limit` if there may be more."""
        over = (
            sa.select(activation.c.id)
            .where(activation.c.state < sa.literal_column("2"))
            .where(activation.c.deadline_ms <= now_ms)
            .order_by(activation.c.deadline_ms)
        )
        with self._database.writes() as connection:
            return len(
                self._chosen(
                    connection, over, limit, lambda old, _: state.lapsed(old, now_ms, self.policy)
                )
            )

    def redrive(
        self,
        now_ms: int,
        ids: Sequence[str] = (),
        action: str | None = None,
        limit: int = BATCH_MAX,
    ) -> list[str]:
        """Queues dead letters anew, the oldest first: those of `ids`, or of an action, or all;
        returns which, as many as `limit` if there may be more."""
        dead = sa.select(activation.c.id).where(is_dead).order_by(activation.c.id)
        if ids:
            assert len(ids) <= BATCH_MAX
            dead = dead.where(activation.c.id.in_(ids))
        if action is not None:
            dead = dead.where(activation.c.action == action)

        def decide(old: Standing, id: str) -> Standing:
            return state.redriven(old, now_ms, self.policy)

        with self._database.writes() as connection:
            moved = self._chosen(connection, dead, limit, decide)
            if moved:
                self._ring(connection)
        return list(moved)

    def _chosen(
        self,
        connection: sa.Connection,
        query: sa.Select[tuple[str]],
        limit: int,
        decide: Callable[[Standing, str], Standing],
    ) -> dict[str, State]:
        assert 0 < limit <= BATCH_MAX
        chosen = query.limit(limit).with_for_update(skip_locked=True)
        return move(connection, list(connection.scalars(chosen)), decide)

    def purge(self, now_ms: int, age_ms: int, count_max: int, limit: int = BATCH_MAX) -> int:
        """Deletes records that are done for longer than `age_ms`, or beyond the `count_max`
        newest, and keys whose time is over; returns how many records, `limit` if there may be
        more."""
        ended = activation.c.finished_at_ms
        old = sa.select(activation.c.id).where(is_done, ended <= now_ms - age_ms)
        beyond = sa.select(activation.c.id).where(is_done).order_by(ended.desc()).offset(count_max)
        keys = sa.tuple_(idempotency.c.action, idempotency.c.key)
        stale = sa.select(idempotency.c.action, idempotency.c.key)
        stale = stale.where(idempotency.c.kept_until_ms <= now_ms).limit(limit)
        with self._database.writes() as connection:
            connection.execute(sa.delete(idempotency).where(keys.in_(stale)))
            ids = list(connection.scalars(old.order_by(ended).limit(limit)))
            if len(ids) < limit:
                more = connection.scalars(beyond.limit(limit - len(ids)))
                ids += [one for one in more if one not in set(ids)]
            if ids:
                connection.execute(sa.delete(activation).where(activation.c.id.in_(ids), is_done))
        return len(ids)

    def get(self, id: str) -> Activation | None:
        """The activation with this id."""
        with self._database.reads() as connection:
            row = connection.execute(sa.select(activation).where(activation.c.id == id)).first()
        return activation_of(row) if row is not None else None

    def newest(
        self,
        namespace: str,
        action: str | None = None,
        before: str | None = None,
        state: State | None = None,
        limit: int = 100,
    ) -> list[Activation]:
        """A namespace's activations, the newest first; `before`: only those older than that id."""
        found = sa.select(activation).where(activation.c.namespace == namespace)
        if action is not None:
            found = found.where(activation.c.action == action)
        if before is not None:
            found = found.where(activation.c.id < before)
        if state is not None:
            found = found.where(activation.c.state == sa.literal_column(str(int(state))))
        return self._listed(found.order_by(activation.c.id.desc()), limit)

    def dead(self, after: str = "", limit: int = 100) -> list[Activation]:
        """Dead letters, the oldest first; only those newer than the id `after`."""
        found = sa.select(activation).where(is_dead, activation.c.id > after)
        return self._listed(found.order_by(activation.c.id), limit)

    def dead_count(self) -> int:
        """How many dead letters there are."""
        counted = sa.select(sa.func.count()).select_from(activation).where(is_dead)
        with self._database.reads() as connection:
            return int(connection.scalar(counted) or 0)

    def _listed(self, found: sa.Select[Any], limit: int) -> list[Activation]:
        assert 0 < limit <= BATCH_MAX
        with self._database.reads() as connection:
            return [activation_of(row) for row in connection.execute(found.limit(limit))]

    def waiting(self, now_ms: int, each_max: int) -> list[Waiting]:
        """What could be claimed now, by action; each counted up to `each_max`."""
        bounds = {"now": now_ms, "each": each_max, "actions": ACTIONS_MAX}
        with self._database.reads() as connection:
            return [Waiting(*row) for row in connection.execute(_WAITING, bounds)]

    def _ring(self, connection: sa.Connection) -> None:
        if not self._database.is_sqlite:
            connection.execute(sa.select(sa.func.pg_notify(QUEUED_CHANNEL, "")))
