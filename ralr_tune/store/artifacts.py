"""What the database knows of a study's artifacts: their store, and the one object of each row that is valid.

A checkpoint is valid once the transaction that records its epoch has named it (`Ledger.progress`). Listings of a store
decide nothing: they may be stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Delete, Insert, delete, insert, select

from ralr_tune.records import Row
from ralr_tune.store.database import Storage
from ralr_tune.store.schema import HEAD
from ralr_tune.store.tables import Now, artifacts, stores

_IDS_PER_STATEMENT = 500


@dataclass(frozen=True)
class StoredPlace:
    """Where a study's artifacts are kept."""

    url: str
    folder: str
    """Unique to this study in this database: another database may hold a study of the same name."""

    def __str__(self) -> str:
        return f"{self.url}/{self.folder}"


@dataclass(frozen=True)
class Artifact:
    """A whole object of a row."""

    name: str
    epoch: int
    sha256: str
    bytes: int


def place_of(storage: Storage, study: str) -> StoredPlace | None:
    """Where the artifacts of a study are kept; None: in the out folder."""
    if storage.version < HEAD:
        return None
    found = storage.rows(select(stores.c.url, stores.c.folder).where(stores.c.study == study))
    return StoredPlace(**found[0]) if found else None


def set_place(storage: Storage, study: str, place: StoredPlace) -> None:
    """Records where the artifacts are kept, in place of what is recorded. Call it while holding the study's lock."""
    storage.change(delete(stores).where(stores.c.study == study))
    storage.change(insert(stores).values(study=study, url=place.url, folder=place.folder, created=Now()))


def valid(storage: Storage, study: str) -> Mapping[int, Artifact]:
    """The valid object of every row of a study that has one, by the row's id."""
    query = select(artifacts).where(artifacts.c.study == study)
    found = storage.rows(query) if storage.version >= HEAD else ()
    return {each["row"]: Artifact(each["name"], each["epoch"], each["sha256"], each["bytes"]) for each in found}


def valid_of(storage: Storage, row_id: int) -> Artifact | None:
    """The valid object of one row."""
    found = storage.rows(select(artifacts).where(artifacts.c.row == row_id))
    return Artifact(found[0]["name"], found[0]["epoch"], found[0]["sha256"], found[0]["bytes"]) if found else None


def set_valid(study: str, row: Row, artifact: Artifact) -> tuple[Delete, Insert]:
    """The statements that make an object the valid one of a row, for one transaction."""
    values = {"row": row.id, "study": study, **vars(artifact)}
    return delete(artifacts).where(artifacts.c.row == row.id), insert(artifacts).values(**values)


def forget(storage: Storage, row_ids: Iterable[int]) -> None:
    """Removes what is recorded of these rows."""
    ids = sorted(row_ids)
    for first in range(0, len(ids), _IDS_PER_STATEMENT):
        storage.change(delete(artifacts).where(artifacts.c.row.in_(ids[first : first + _IDS_PER_STATEMENT])))
