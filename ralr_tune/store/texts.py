"""Structured texts of a database: what this program wrote there, or an error that names where the other text stands.

They may come from anybody who can write to the database. JSON executes nothing; what it says is looked at all the same.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from ralr_tune.errors import StorageError
from ralr_tune.records import EpochRecord
from ralr_tune.studyfile.problems import shown

_EPOCH = {field.name for field in fields(EpochRecord)}


def read_table(text: str | None, where: str) -> dict[str, Any]:
    """A JSON object; empty where there is no text. StorageError, beginning with `where`, for anything else."""
    said = _read(text or "{}", where)
    if not isinstance(said, dict):
        raise _unexpected(where, text, "a JSON object")
    return said


def read_curve(text: str | None, where: str) -> tuple[EpochRecord, ...]:
    """Epochs as the ledger keeps them; none where there is no text. StorageError, beginning with `where`, else."""
    said = _read(text or "[]", where)
    if not isinstance(said, list) or not all(map(_is_epoch, said)):
        raise _unexpected(where, text, f"a JSON list of epochs, each with the numbers {', '.join(sorted(_EPOCH))}")
    return tuple(EpochRecord(**record) for record in said)


def _read(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a number or a nesting beyond all bounds is no JSON of ours either
        raise _unexpected(where, text, "JSON") from None


def _is_epoch(said: object) -> bool:
    if not isinstance(said, dict) or said.keys() != _EPOCH or type(said["epoch"]) is not int:
        return False
    return all(type(number) in (int, float) for number in said.values())  # a bool is an int, too


def _unexpected(where: str, text: str | None, allowed: str) -> StorageError:
    return StorageError(f"{where} = {shown(text)}: not written by this program; allowed: {allowed}")
