"""Claims: how a worker gets a row of the ledger that no other worker holds."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Executable, Insert, RowMapping, Update, and_, func, select, update

from ralr_tune.records import Row, Stage
from ralr_tune.store.database import Storage
from ralr_tune.store.incidents import incident_insert
from ralr_tune.store.rows import ALL_COLUMNS, LIGHT, in_stage, in_study, row_of, waiting
from ralr_tune.store.tables import Now, ledger

_CANDIDATES = 8  # read together, so that workers that claim at the same time rarely need a second query


def change_with(storage: Storage, write: Update, also: Sequence[Executable]) -> int:
    """The number of rows that `write` matched; `also` is executed, in the same transaction, if it matched one."""
    if not also:
        return storage.change(write)

    def together(connection: Connection) -> int:
        matched = connection.execute(write).rowcount
        for statement in also if matched else ():
            connection.execute(statement)
        return matched

    return storage.transact(together)


@dataclass(frozen=True)
class Claim:
    """One worker's search for a row of a stage."""

    storage: Storage
    key: str
    """Of the study, as the ledger stores it."""
    stage: Stage
    owner: str
    lease_s: float
    token: str
    """Identifies a claim whose response was lost."""

    def row(self) -> Row | None:
        """The first waiting row, now held by `owner`; None if there is none."""
        return self._unlocked() if self.storage.address.dialect == "postgresql" else self._conditional()

    def _unlocked(self) -> Row | None:
        """The first waiting row that no other worker is claiming now: one transaction, and no collisions.

        Only PostgreSQL locks just the row that it returns: MariaDB locks every row that it sorts.
        """
        tried = False

        def claimed(connection: Connection) -> RowMapping | None:
            nonlocal tried
            before, tried = self._before(connection) if tried else None, True
            return before or self._now(connection)

        found = self.storage.transact(claimed)
        return None if found is None else row_of(found)

    def _before(self, connection: Connection) -> RowMapping | None:
        """What the first try claimed, if only its response was lost."""
        own = and_(in_study(self.key), ledger.c.token == self.token, ledger.c.state == "held")
        return connection.execute(select(*ALL_COLUMNS).where(own)).mappings().first()

    def _now(self, connection: Connection) -> RowMapping | None:
        query = in_stage(select(*LIGHT).where(in_study(self.key), waiting).order_by(ledger.c.id), self.stage).limit(1)
        found = connection.execute(query.with_for_update(skip_locked=True)).mappings().first()
        if found is None:
            return None
        row = row_of(found)
        for incident in self._losses(row):
            connection.execute(incident)
        write = update(ledger).where(ledger.c.id == row.id).values(**self._held(row))
        return connection.execute(write.returning(*ALL_COLUMNS)).mappings().one()

    def _conditional(self) -> Row | None:
        # The loop ends: another worker won or freed each candidate that was lost, and the number of rows is finite.
        while candidates := self._candidates():
            for candidate in _first_then_shuffled(candidates):
                if self._try(candidate):
                    query = select(*ALL_COLUMNS).where(in_study(self.key), ledger.c.id == candidate.id)
                    return row_of(self.storage.rows(query)[0])
        return None

    def _candidates(self) -> list[Row]:
        query = in_stage(select(*LIGHT).where(in_study(self.key), waiting).order_by(ledger.c.id), self.stage)
        return [row_of(found) for found in self.storage.rows(query.limit(_CANDIDATES))]

    def _try(self, row: Row) -> bool:
        """Tries to claim a row with one conditional UPDATE."""
        # in the same state: an owner that woke up may have freed it since, and a row that was freed is not lost
        seen = and_(ledger.c.id == row.id, ledger.c.attempt == row.attempt, ledger.c.state == row.state)
        write = update(ledger).where(seen, waiting).values(**self._held(row))
        if change_with(self.storage, write, self._losses(row)):
            return True
        won = and_(ledger.c.id == row.id, ledger.c.attempt == row.attempt + 1, ledger.c.token == self.token)
        return bool(self.storage.rows(select(ledger.c.id).where(won)))

    def _held(self, row: Row) -> dict[str, Any]:
        held = {"state": "held", "owner": self.owner, "token": self.token, "attempt": row.attempt + 1}
        return {**held, "lease_end": Now() + self.lease_s, "started": func.coalesce(ledger.c.started, Now())}

    def _losses(self, row: Row) -> list[Insert]:
        """The incident to record: a row that is held under an expired lease has lost its worker."""
        gone = f"{row.owner} is gone, and its lease ran out"
        return [incident_insert(self.key, row, "lost", gone)] if row.state == "held" else []


def claim_row(storage: Storage, key: str, stage: Stage, owner: str, lease_s: float) -> Row | None:
    """See `Ledger.claim`."""
    return Claim(storage, key, stage, owner, lease_s, secrets.token_hex(16)).row()


def _first_then_shuffled(candidates: list[Row]) -> list[Row]:
    """The first candidate, then the others in random order: workers that lose the first one rarely collide again."""
    return candidates[:1] + random.sample(candidates[1:], len(candidates) - 1)
