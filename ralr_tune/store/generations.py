"""Generations of a study: states of its data and code, each with its own rows and Optuna studies.

The first generation is stored under the study's name, as by earlier releases; a later one under STUDY@2, STUDY@3, ...
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ralr_tune.errors import StorageError
from ralr_tune.records import Generation, Identity
from ralr_tune.store.database import Storage
from ralr_tune.store.schema import WITH_GENERATIONS
from ralr_tune.store.tables import Now, generations, ledger, studies

_FORM = TypeAdapter(Identity)


def key(study: str, number: int) -> str:
    """The name under which the ledger holds the rows of a generation."""
    return study if number == 1 else f"{study}@{number}"


def newest(storage: Storage, study: str) -> int:
    """The number of the newest generation; 1 if none is recorded."""
    if storage.version < WITH_GENERATIONS:
        return 1
    query = select(func.max(generations.c.number).label("number")).where(generations.c.study == study)
    return storage.rows(query)[0]["number"] or 1


def identity(storage: Storage, study: str, number: int) -> Identity | None:
    """What the trials of a generation read; None if it is not recorded."""
    query = select(generations.c.identity).where(_is(study, number))
    found = storage.rows(query) if storage.version >= WITH_GENERATIONS else ()
    return _identity(found[0]["identity"], study, number) if found else None


def every(storage: Storage, study: str) -> tuple[Generation, ...]:
    """All generations of a stored study, the oldest first."""
    created = storage.rows(select(studies.c.created).where(studies.c.name == study))[0]["created"]
    query = select(generations).where(generations.c.study == study).order_by(generations.c.number)
    stored = {found["number"]: found for found in (storage.rows(query) if storage.version >= WITH_GENERATIONS else ())}
    begun = _begun(storage, [key(study, number) for number in {1, *stored}])
    return tuple(
        Generation(
            number,
            stored[number]["created"] if number > 1 else created,
            _identity(stored[number]["identity"], study, number) if number in stored else None,
            begun.get(key(study, number), 0),
        )
        for number in sorted({1, *stored})
    )


def record(storage: Storage, study: str, number: int, read: Identity) -> None:
    """Stores what the trials of a generation read, in place of what is stored."""
    _store(storage, study, number, identity=json.dumps(_FORM.dump_python(read, mode="json")))


def begin(storage: Storage, study: str, number: int, read: Identity) -> None:
    """Begins generation `number` (2 or later); the study file of the one before is kept with it. Safe to repeat."""
    kept = storage.rows(select(studies.c.text, studies.c.fingerprint).where(studies.c.name == study))[0]
    _store(storage, study, number - 1, **kept)
    record(storage, study, number, read)


def _store(storage: Storage, study: str, number: int, **values: Any) -> None:
    """Updates the row of a generation, or inserts it."""
    write = update(generations).where(_is(study, number)).values(**values)
    if storage.change(write):
        return
    try:
        storage.change(insert(generations).values(study=study, number=number, created=Now(), **values))
    except IntegrityError:  # the response to a first try was lost, or another process inserted it
        storage.change(write)


def _is(study: str, number: int) -> ColumnElement[bool]:
    return (generations.c.study == study) & (generations.c.number == number)


def _begun(storage: Storage, keys: list[str]) -> Mapping[str, int]:
    query = select(ledger.c.study, func.count().label("rows")).where(ledger.c.study.in_(keys), ledger.c.attempt > 0)
    return {found["study"]: found["rows"] for found in storage.rows(query.group_by(ledger.c.study))}


def _identity(text: str | None, study: str, number: int) -> Identity | None:
    if text is None:
        return None
    try:
        return _FORM.validate_json(text)
    except ValidationError as error:
        where = f"study {study}: what generation {number} read"
        raise StorageError(f"{where}: not written by this program: {str(error).partition(chr(10))[0]}") from None
