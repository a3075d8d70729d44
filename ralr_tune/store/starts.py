"""What a study takes from an earlier one (`search.start_from`), kept with each of its Optuna studies.

It is a user attribute of every Optuna study of an arm and block, the same in all: a worker reads it where it asks, and
the earlier study is never read again, so that nothing that happens to it changes a study that has begun.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import optuna
from pydantic import TypeAdapter, ValidationError

from ralr_tune.errors import StorageError
from ralr_tune.records import WarmStart
from ralr_tune.store.database import Storage

START = "ralr_tune:start"
"""Optuna user attribute of a study: what it takes from an earlier one."""

_FORM = TypeAdapter(WarmStart)


def sealed(start: WarmStart) -> WarmStart:
    """The same with its digest."""
    return replace(start, digest=_digest(start))


def save(study: optuna.Study, start: WarmStart) -> None:
    """Keeps it with an Optuna study, in place of what is there. Callers hold the lock of the study."""
    if study.user_attrs.get(START) != (plain := _plain(start)):
        study.set_user_attr(START, plain)


def of_study(study: optuna.Study) -> WarmStart | None:
    """What is kept with an Optuna study; None if nothing is. StorageError if it was edited."""
    return _read(study.user_attrs, study.study_name)


def first(storage: Storage, names: Iterable[str]) -> WarmStart | None:
    """What is kept with the first of these Optuna studies that exists and has anything. StorageError as above."""
    for name in names:
        try:
            attributes = storage.optuna.get_study_user_attrs(storage.optuna.get_study_id_from_name(name))
        except KeyError:
            continue
        if (found := _read(attributes, name)) is not None:
            return found
    return None


def _read(attributes: Mapping[str, Any], name: str) -> WarmStart | None:
    if START not in attributes:
        return None
    try:
        start = _FORM.validate_python(attributes[START])
    except ValidationError as error:
        found = str(error).partition("\n")[0]
        raise StorageError(f"Optuna study {name!r}: its attribute {START} is not this program's: {found}") from None
    if start.digest != _digest(start):
        raise StorageError(f"Optuna study {name!r}: its attribute {START} was edited: its digest does not match")
    return start


def _plain(start: WarmStart) -> dict[str, Any]:
    """As JSON gives it back: lists in place of tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(start)))
    return plain


def _digest(start: WarmStart) -> str:
    kept = _plain(replace(start, digest=""))
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
