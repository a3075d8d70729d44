"""Alembic runs this file for each of its commands; `schema.py` passes it the connection."""

from __future__ import annotations

from alembic import context

from ralr_tune.store.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
