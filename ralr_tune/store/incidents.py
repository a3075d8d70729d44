"""Failures during a study, including those from which a trial recovered: the ledger stores only how a row ended."""

from __future__ import annotations

import hashlib
import traceback
from typing import Any

from sqlalchemy import Insert, RowMapping, Select, func, insert, select

from ralr_tune.errors import FailureKind
from ralr_tune.records import Incident, Row
from ralr_tune.store.database import Storage
from ralr_tune.store.tables import Now, incidents

_DETAIL = 20_000
"""Characters of a traceback that are stored, counted from its end: a recursion error can produce megabytes."""


def incident_insert(
    study: str, row: Row, kind: FailureKind, message: str, *, detail: str = "", signature: str | None = None
) -> Insert:
    """The statement that inserts an incident; one for each attempt and kind (a second one raises IntegrityError)."""
    return insert(incidents).values(
        study=study,
        row=row.id,
        attempt=row.attempt,
        kind=kind,
        signature=signature or signature_of(kind, message),
        message=message,
        detail=detail[-_DETAIL:],
        owner=row.owner,
        epoch=row.epoch,
        time=Now(),
    )


def signature_of(*parts: str) -> str:
    """A hash of the parts, 64 characters."""
    return hashlib.sha256("\0".join(parts).encode(errors="backslashreplace")).hexdigest()


def signature_of_error(error: BaseException) -> str:
    """The same for all errors of one class from one line of code: their messages may contain different numbers."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return signature_of(type(error).__name__, where)


def counts(storage: Storage, study: str) -> dict[FailureKind, int]:
    """The number of incidents of each kind in a study."""
    query = _in_study(study, select(incidents.c.kind, func.count().label("times"))).group_by(incidents.c.kind)
    return {found["kind"]: found["times"] for found in storage.rows(query)}


def count_equal(storage: Storage, study: str, signature: str) -> int:
    """The number of incidents of a study with this signature."""
    query = _in_study(study, select(func.count().label("times"))).where(incidents.c.signature == signature)
    return int(storage.rows(query)[0]["times"])


def of_row(storage: Storage, study: str, row_id: int) -> list[Incident]:
    """Incidents of one row, earliest first."""
    query = _in_study(study, select(incidents)).where(incidents.c.row == row_id).order_by(incidents.c.id)
    return [_incident(found) for found in storage.rows(query)]


def latest(storage: Storage, study: str) -> Incident | None:
    """The last incident of a study."""
    found = storage.rows(_in_study(study, select(incidents)).order_by(incidents.c.id.desc()).limit(1))
    return _incident(found[0]) if found else None


def _in_study(study: str, query: Select[Any]) -> Select[Any]:
    return query.where(incidents.c.study == study)


def _incident(found: RowMapping) -> Incident:
    return Incident(**{name: found[name] for name in Incident.__dataclass_fields__})
