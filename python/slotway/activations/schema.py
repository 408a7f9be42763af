"""The tables. A change of them is a new file in `migrations/versions`; a test compares the two.

Every index that a claim uses is partial and holds only what is alive, so that neither the depth
of the queue nor the number of records slows one down. Text compares by bytes on both databases.
"""

from __future__ import annotations

import sqlalchemy as sa

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

metadata = sa.MetaData()

activation = sa.Table(
    "activation",
    metadata,
    sa.Column("id", _TEXT, primary_key=True),
    sa.Column("namespace", _TEXT, nullable=False),
    sa.Column("action", _TEXT, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("token", sa.BigInteger),
    sa.Column("submitted_at_ms", sa.BigInteger, nullable=False),
    sa.Column("due_at_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
    sa.Column("deadline_ms", sa.BigInteger),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.SmallInteger),
    sa.Column("result", sa.LargeBinary),
    sa.Column("started_at_ms", sa.BigInteger),
    sa.Column("finished_at_ms", sa.BigInteger),
    sa.Column("run_us", sa.BigInteger),
    sa.Column("router", sa.Text),
    sa.Column("container", sa.Text),
)

# Literals, not parameters: the planner has to see that a query fits the index.
is_queued = activation.c.state == sa.literal_column("0")
is_done = activation.c.state == sa.literal_column("2")
is_dead = activation.c.state == sa.literal_column("3")
is_alive = activation.c.state < sa.literal_column("2")


def _partial(name: str, where: sa.ColumnElement[bool], *columns: sa.Column[object]) -> sa.Index:
    return sa.Index(name, *columns, sqlite_where=where, postgresql_where=where)


_partial(
    "activation_queue", is_queued, activation.c.action, activation.c.due_at_ms, activation.c.id
)
_partial("activation_deadline", is_alive, activation.c.deadline_ms)
_partial("activation_dead", is_dead, activation.c.id)
_partial("activation_finished", is_done, activation.c.finished_at_ms)
sa.Index("activation_of_namespace", activation.c.namespace, activation.c.id)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("action", _TEXT, primary_key=True),
    sa.Column("key", _TEXT, primary_key=True),
    sa.Column("activation_id", _TEXT, nullable=False),
    sa.Column("kept_until_ms", sa.BigInteger, nullable=False, index=True),
)
