"""Brings a database to the schema of this version; any number of processes may try at once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from slotway.errors import SlotwayError

_ADVISORY_LOCK = 0x736C6F74776179  # "slotway"


def migrate(engine: sa.Engine) -> None:
    """Creates or upgrades the tables, in one transaction. SlotwayError if the database is of a
    newer version than this; `sqlalchemy.exc` errors if it cannot."""
    config = Config()
    config.set_main_option("script_location", "slotway.activations:migrations")
    script = ScriptDirectory.from_config(config)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision == script.get_current_head():
            return
        known = {one.revision for one in script.walk_revisions()}
        if revision is not None and revision not in known:
            raise SlotwayError(
                f"the store {engine.url.render_as_string()} has schema {revision}, which this "
                "version does not know: a newer Slotway has upgraded it; upgrade this one too"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
