"""Tables for artifacts: the store of a study, and the valid object of each row."""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, Double, Integer, String, Text
from sqlalchemy.dialects.mysql import LONGTEXT, VARCHAR
from sqlalchemy.types import TypeEngine

revision = "0004"
down_revision = "0003"

_OPTIONS: dict[str, Any] = {"if_not_exists": True, "mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}


def upgrade() -> None:
    """Creates the tables. Programs of version 3 refuse the database from then on."""
    op.create_table(
        "ralr_tune_stores",
        Column("study", _name(200), primary_key=True),
        Column("url", Text().with_variant(LONGTEXT(charset="utf8mb4"), "mysql"), nullable=False),
        Column("folder", _name(200), nullable=False),
        Column("created", Double, nullable=False),
        **_OPTIONS,
    )
    op.create_table(
        "ralr_tune_artifacts",
        Column("row", Integer, primary_key=True, autoincrement=False),
        Column("study", _name(200), nullable=False),
        Column("name", _name(200), nullable=False),
        Column("epoch", Integer, nullable=False),
        Column("sha256", _name(64), nullable=False),
        Column("bytes", BigInteger, nullable=False),
        **_OPTIONS,
    )


def _name(length: int) -> TypeEngine[str]:
    return String(length).with_variant(VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
