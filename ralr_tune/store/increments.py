"""The rows of a study, kept up to date by reading what has changed since the last time.

A refresh costs a few statements. Their results grow with the rows that run now and those that have ended since, not
with the size of the study.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from sqlalchemy import ColumnElement, or_, select

from ralr_tune.records import Row
from ralr_tune.store import generations
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Count, Ledger
from ralr_tune.store.rows import LIGHT, expired, row_of
from ralr_tune.store.tables import ledger as table

OVERLAP_S = 5.0
"""Rows that ended up to so many seconds before the last one are read again: their transactions may have been committed
later. Should one take longer, the counts show that a row is missing, and all rows are read."""


class LiveRows:
    """The rows of the newest generation of a study, without the curves of those that do not run. For one thread.

    A row whose worker is gone (its lease ran out) counts as free. `refresh` raises StorageError.
    """

    def __init__(self, storage: Storage, study: str) -> None:
        self._storage, self._study = storage, study
        self._begin()

    def _begin(self) -> None:
        self.ledger = Ledger(self._storage, self._study)
        self._rows: dict[int, Row] | None = None
        self._finished = 0.0

    @property
    def rows(self) -> list[Row]:
        """All rows in order of their ids, as of the last refresh."""
        return [self._rows[number] for number in sorted(self._rows)] if self._rows else []

    def refresh(self) -> list[Row]:
        """Read what has changed, and return the rows that are new or differ, in order of their ids."""
        if generations.newest(self._storage, self._study) != self.ledger.generation:
            self._begin()
        counts = list(self.ledger.counts().values())  # first: what is read later is at least as new
        held = self._held()
        before = self._rows
        found = self._every(held) if before is None else self._changed(before, held)
        known = (before or {}) | found
        if not _is_complete(known.values(), counts):
            known = found = self._every(held)
        self._rows = known
        self._finished = max([self._finished, *(row.finished for row in found.values() if row.finished)])
        return [row for number, row in sorted(found.items()) if before is None or before.get(number) != row]

    def _held(self) -> dict[int, Row]:
        query = select(*LIGHT, expired.label("expired")).where(self._in_study, table.c.state == "held")
        rows: dict[int, Row] = {}
        for found in self._storage.rows(query):
            fields = dict(found)
            is_gone = fields.pop("expired")
            row = row_of(fields)
            rows[row.id] = replace(row, state="free") if is_gone else row
        return rows

    def _every(self, held: Mapping[int, Row]) -> dict[int, Row]:
        rows = self.ledger.rows(curves=False)
        return {row.id: held.get(row.id, row) if row.state == "held" else row for row in rows}

    def _changed(self, known: Mapping[int, Row], held: Mapping[int, Row]) -> dict[int, Row]:
        left = [number for number, row in known.items() if row.state == "held" and number not in held]
        is_new = table.c.id > max(known, default=0)
        changed = or_(is_new, table.c.finished > self._finished - OVERLAP_S, table.c.id.in_(left))
        query = select(*LIGHT).where(self._in_study, changed)
        return dict(held) | {row.id: row for row in map(row_of, self._storage.rows(query))}

    @property
    def _in_study(self) -> ColumnElement[bool]:
        return table.c.study == self.ledger.key


def _is_complete(rows: Iterable[Row], counts: Iterable[Count]) -> bool:
    """False if a row is missing or was withdrawn, or if one that had failed waits again."""
    states = [(row.state, row.outcome) for row in rows]
    counted = list(counts)
    return (
        len(states) <= sum(count.budget for count in counted)
        and sum(state == "done" for state, _ in states) >= sum(count.done for count in counted)
        and sum(outcome == "failed" for _, outcome in states) <= sum(count.failed for count in counted)
    )
