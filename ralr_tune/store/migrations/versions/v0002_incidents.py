"""A table for incidents: failures during a study."""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import Column, Double, Integer, String, Text, UniqueConstraint, inspect
from sqlalchemy.dialects.mysql import LONGTEXT, VARCHAR
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"

TABLE = "ralr_tune_incidents"
INDEX = "ralr_tune_incidents_study"


def upgrade() -> None:
    """Creates the table and its index, then locks out programs of version 1."""
    op.create_table(
        TABLE,
        Column("id", Integer, primary_key=True),
        Column("study", _name(200), nullable=False),
        Column("row", Integer, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("kind", _name(16), nullable=False),
        Column("signature", _name(64), nullable=False),
        Column("message", _long_text(), nullable=False),
        Column("detail", _long_text(), nullable=False),
        Column("owner", _name(255)),
        Column("epoch", Integer, nullable=False),
        Column("time", Double, nullable=False),
        UniqueConstraint("row", "attempt", "kind", name="ralr_tune_incidents_once"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
    )
    if INDEX not in {index["name"] for index in inspect(op.get_bind()).get_indexes(TABLE)}:
        op.create_index(INDEX, TABLE, ["study", "kind"])
    op.execute("UPDATE ralr_tune_schema SET version = 2")


def _name(length: int) -> TypeEngine[str]:
    return String(length).with_variant(VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def _long_text() -> TypeEngine[Any]:
    return Text().with_variant(LONGTEXT(charset="utf8mb4"), "mysql")
