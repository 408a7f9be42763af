"""Activations, and the idempotency keys that name them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates both tables."""
    op.create_table(
        "activation",
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
    for name, columns, where in (
        ("activation_queue", ["action", "due_at_ms", "id"], "state = 0"),
        ("activation_deadline", ["deadline_ms"], "state < 2"),
        ("activation_dead", ["id"], "state = 3"),
        ("activation_finished", ["finished_at_ms"], "state = 2"),
    ):
        condition = sa.text(where)
        op.create_index(
            name, "activation", columns, sqlite_where=condition, postgresql_where=condition
        )
    op.create_index("activation_of_namespace", "activation", ["namespace", "id"])
    op.create_table(
        "idempotency",
        sa.Column("action", _TEXT, primary_key=True),
        sa.Column("key", _TEXT, primary_key=True),
        sa.Column("activation_id", _TEXT, nullable=False),
        sa.Column("kept_until_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_idempotency_kept_until_ms", "idempotency", ["kept_until_ms"])
