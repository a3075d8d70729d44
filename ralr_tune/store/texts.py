"""Reads JSON texts from the database, and rejects those that this program did not write, with an error that says where.

They may come from anyone with write access to the database. JSON executes no code; its content is still validated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ralr_tune.errors import StorageError
from ralr_tune.records import EpochRecord, MetricSeries
from ralr_tune.studyfile.problems import shown

_METRICS = TypeAdapter(list[MetricSeries])
_EPOCH = tuple(field.name for field in fields(EpochRecord) if field.name != "others")
"""What is stored of an epoch; its further metrics are stored as series."""


def read_table(text: str | None, where: str) -> dict[str, Any]:
    """A JSON object; empty if there is no text. StorageError, beginning with `where`, for anything else."""
    value = _read(text or "{}", where)
    if not isinstance(value, dict):
        raise _unexpected(where, text, "a JSON object")
    return value


def training_text(curve: Sequence[EpochRecord], metrics: Sequence[MetricSeries]) -> str:
    """Epochs and other metrics as the ledger stores them: a list of epochs, or an object if there are metrics."""
    epochs = [{name: getattr(record, name) for name in _EPOCH} for record in curve]
    return json.dumps({"curve": epochs, "metrics": [asdict(series) for series in metrics]} if metrics else epochs)


def read_training(text: str | None, where: str) -> tuple[tuple[EpochRecord, ...], tuple[MetricSeries, ...]]:
    """Epochs and other metrics of a row; empty if there is no text. StorageError, beginning with `where`, otherwise."""
    value = _read(text or "[]", where)
    if not isinstance(value, dict):
        return read_curve(text, where), ()
    if value.keys() != {"curve", "metrics"} or not isinstance(value["metrics"], list):
        raise _unexpected(where, text, "a JSON object with curve and metrics")
    try:
        metrics = tuple(_METRICS.validate_python(value["metrics"]))
    except ValidationError as error:
        raise _unexpected(where, text, "metrics, each with name, axis, every and points") from error
    return read_curve(json.dumps(value["curve"]), where), metrics


def read_curve(text: str | None, where: str) -> tuple[EpochRecord, ...]:
    """Epochs as the ledger stores them; none if there is no text. StorageError, beginning with `where`, otherwise.

    While a row runs, the ledger stores only values, one for each epoch: the other fields are then NaN.
    """
    value = _read(text or "[]", where)
    if isinstance(value, list) and all(map(_is_value, value)):
        return tuple(_reported(epoch, each) for epoch, each in enumerate(value, start=1))
    if not isinstance(value, list) or not all(map(_is_epoch, value)):
        raise _unexpected(where, text, f"a JSON list of epochs, each with the numbers {', '.join(sorted(_EPOCH))}")
    return tuple(EpochRecord(**record) for record in value)


def _is_value(value: object) -> bool:
    return value is None or type(value) in (int, float)


def _reported(epoch: int, value: float | None) -> EpochRecord:
    nan = math.nan
    return EpochRecord(epoch, nan if value is None else value, train_loss=nan, lr=nan, factor=nan, seconds=nan)


def _read(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # also for numbers that are too long and nesting that is too deep
        raise _unexpected(where, text, "JSON") from None


def _is_epoch(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != set(_EPOCH) or type(value["epoch"]) is not int:
        return False
    return all(type(number) in (int, float) for number in value.values())  # not isinstance: a bool is an int


def _unexpected(where: str, text: str | None, allowed: str) -> StorageError:
    return StorageError(f"{where} = {shown(text)}: not written by this program; allowed: {allowed}")
