"""Rows of the ledger as queries read them: columns, conditions, and the record of a row that was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, or_

from ralr_tune.records import Row, Stage
from ralr_tune.store.tables import NO_SOURCE, Now, ledger
from ralr_tune.store.texts import read_table, read_training

free = ledger.c.state == "free"
expired = and_(ledger.c.state == "held", ledger.c.lease_end < Now())
waiting = or_(free, expired)

ALL_COLUMNS = [ledger.c[name] for name in Row.__dataclass_fields__ if name != "metrics"]  # metrics: in `curve`
_RUNNING_CURVE = case((ledger.c.state == "held", ledger.c.curve)).label("curve")
LIGHT = [column if column is not ledger.c.curve else _RUNNING_CURVE for column in ALL_COLUMNS]
"""Without the curves of rows that are not running."""


def in_study(key: str) -> ColumnElement[bool]:
    """Rows of one study and generation."""
    return ledger.c.study == key


def in_stage(query: Select[Any], stage: Stage) -> Select[Any]:
    return query.where(ledger.c.stage == stage)


def row_of(found: Mapping[Any, Any]) -> Row:
    """The record. StorageError if this program did not write its texts."""
    fields: dict[str, Any] = dict(found)
    where = f"ledger row {fields['id']}"
    fields["source"] = None if fields["source"] == NO_SOURCE else fields["source"]
    fields["params"] = read_table(fields["params"], f"{where}: params")
    fields["curve"], fields["metrics"] = read_training(fields.get("curve"), f"{where}: curve")
    return Row(**fields)
