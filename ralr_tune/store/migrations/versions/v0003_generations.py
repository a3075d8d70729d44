"""A table for generations: what the trials of a study read."""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import Column, Double, Integer, String, Text
from sqlalchemy.dialects.mysql import LONGTEXT, VARCHAR
from sqlalchemy.types import TypeEngine

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Creates the table. Programs of version 2 refuse the database from then on."""
    op.create_table(
        "ralr_tune_generations",
        Column("study", _name(200), primary_key=True),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("created", Double, nullable=False),
        Column("identity", _long_text()),
        Column("text", _long_text()),
        Column("fingerprint", _name(200)),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
    )


def _name(length: int) -> TypeEngine[str]:
    return String(length).with_variant(VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def _long_text() -> TypeEngine[Any]:
    return Text().with_variant(LONGTEXT(charset="utf8mb4"), "mysql")
