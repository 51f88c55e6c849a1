"""Run by Alembic, on the connection that ``PostgresStore`` hands it."""

from __future__ import annotations

from alembic import context

VERSION_TABLE = "usage_version"

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
