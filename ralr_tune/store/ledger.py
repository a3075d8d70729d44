"""The ledger: which trials are planned, which worker runs each of them, and how each ended.

A row belongs to the worker that last claimed it, until its lease ends; (id, attempt, owner) is the fencing token that
every later write checks. Each decision is one statement that the database executes with its own clock.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Insert,
    and_,
    case,
    delete,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.exc import IntegrityError

from ralr_tune.errors import FailureKind, LeaseLost, StorageError
from ralr_tune.records import EpochRecord, MetricSeries, Outcome, Row, Stage, State
from ralr_tune.store import generations
from ralr_tune.store.artifacts import Artifact, set_valid
from ralr_tune.store.claiming import change_with, claim_row
from ralr_tune.store.database import Storage
from ralr_tune.store.incidents import incident_insert
from ralr_tune.store.rows import ALL_COLUMNS, LIGHT, expired, free, in_stage, row_of, waiting
from ralr_tune.store.studies import attributes_statement, optuna_name, report_statement
from ralr_tune.store.tables import NO_SOURCE, Now, check_name, ledger
from ralr_tune.store.texts import training_text

_ROWS_PER_INSERT = 1000  # rows a statement, of 12 parameters each: SQLite takes 32766
_MAX_CONFLICTS = 100  # inserts lost to other planners before `plan` raises the IntegrityError

_always = true()
_ended: dict[str, Any] = {"lease_end": None, "finished": Now()}

Key = tuple[str, str, int, int, str, int]


@dataclass(frozen=True)
class PlannedRow:
    """A trial before any worker has claimed it; see records.Row for the fields."""

    arm: str
    stage: Stage
    block: int
    ordinal: int
    seed: int
    role: str = ""
    source: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Unique within a study: planning a row twice adds it once."""
        return (self.arm, self.stage, self.block, self.ordinal, self.role, self.source_number)

    @property
    def source_number(self) -> int:
        """The source as its column stores it."""
        return NO_SOURCE if self.source is None else self.source


@dataclass
class Count:
    """The number of rows of one arm and stage in each condition; each row counts once."""

    waiting: int = 0
    """Free, or held under an expired lease."""
    running: int = 0
    complete: int = 0
    pruned: int = 0
    diverged: int = 0
    failed: int = 0

    @property
    def budget(self) -> int:
        return self.waiting + self.running + self.done

    @property
    def done(self) -> int:
        return self.complete + self.pruned + self.diverged + self.failed


class Ledger:
    """The rows of one study, of the generation that is the newest when this is created. Threads may share it.

    A write by a row's former owner raises LeaseLost and changes nothing: its lease expired and another worker claimed
    the row, or the row was released. An expired lease without a new claim is still valid.
    """

    def __init__(self, storage: Storage, study: str, lease_s: float = 30) -> None:
        self.storage = storage
        self.study = study
        self.lease_s = lease_s
        self.generation = generations.newest(storage, study)
        self.key = generations.key(study, self.generation)
        """Under which its rows are stored: the study's name, with the number of a later generation."""

    def optuna_name(self, arm: str, block: int = 1) -> str:
        """Name of the Optuna study of an arm in this generation."""
        return optuna_name(self.study, arm, block, self.generation)

    def plan(self, rows: Iterable[PlannedRow]) -> int:
        """Adds the rows that do not exist yet, in their order (workers claim in this order); returns how many."""
        planned = {row.key: row for row in rows}
        for row in planned.values():
            check_name("arm", row.arm)
        added, quicker = 0, 0
        while part := self._missing(planned)[:_ROWS_PER_INSERT]:
            try:
                self.storage.change(insert(ledger).values([self._new(row) for row in part]))
                added += len(part)
            except IntegrityError:  # another planner inserted one of them first: compare again
                quicker += 1
                if quicker > _MAX_CONFLICTS:
                    raise
        return added

    def withdraw(self, arm: str, block: int, keep: int) -> int:
        """Removes the search rows from ordinal `keep` on that no worker ever started; returns how many."""
        search = and_(ledger.c.stage == "search", ledger.c.arm == arm, ledger.c.block == block)
        unstarted = and_(ledger.c.ordinal >= keep, ledger.c.attempt == 0, free)
        return self.storage.change(delete(ledger).where(self._in_study, search, unstarted))

    def drop(self, rows: Iterable[Row]) -> int:
        """Removes those of `rows` that are neither held nor done; returns how many."""
        these = ledger.c.id.in_([row.id for row in rows])
        return self.storage.change(delete(ledger).where(self._in_study, these, free))

    def claim(self, owner: str, stage: Stage) -> Row | None:
        """The first waiting row of a stage, now held by `owner` (up to 255 characters); None if none is waiting.

        A row whose lease expired is waiting, too; its new owner gets it with `attempt` + 1 and the same `trial`, and an
        incident of kind "lost" is recorded.
        """
        return claim_row(self.storage, self.key, stage, owner, self.lease_s)

    def attach(self, row: Row, trial: int) -> None:
        """Records the Optuna trial that was asked for this row. StorageError if the row already has another one."""
        self._write(row, "held", where=ledger.c.trial.is_(None) | (ledger.c.trial == trial), trial=trial)

    def renew_lease(self, row: Row) -> None:
        """Renews the lease."""
        self._write(row, "held", lease_end=self._lease_end)

    def progress(
        self,
        row: Row,
        record: EpochRecord,
        *,
        curve: Sequence[EpochRecord] = (),
        report_to: int | None = None,
        artifact: Artifact | None = None,
    ) -> None:
        """Renews the lease, records an epoch, and reports its value to the Optuna trial with this id (not number).

        `curve`: all epochs so far, whose values are stored for `status` and the live table. `artifact`: what another
        machine resumes from after this epoch.

        All in one transaction, which first checks the fencing token: reported values are never overwritten, and a
        worker that lost the row cannot report. (Optuna's own `report` knows no owner and overwrites.)
        """
        self._write(
            row,
            "held",
            also=[
                *([] if report_to is None else [report_statement(report_to, record)]),
                *self._valid(row, artifact),
            ],
            lease_end=self._lease_end,
            epoch=record.epoch,
            value=finite(record.value),
            curve=json.dumps([finite(each.value) for each in curve]),
        )

    def finish(
        self,
        row: Row,
        *,
        outcome: Outcome,
        value: float | None,
        curve: Sequence[EpochRecord],
        seconds: float,
        train_value: float | None = None,
        metrics: Sequence[MetricSeries] = (),
        failure: FailureKind | None = None,
        message: str | None = None,
        recovered: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        report_to: int | None = None,
        artifact: Artifact | None = None,
    ) -> None:
        """Marks the row done, with its outcome. `seconds`: of all attempts together. Non-finite numbers become None.

        A failure is also recorded as an incident, and so is `recovered`: how a trial continued after running out of
        memory. `attributes` become user attributes of the Optuna trial with the id `report_to`, in one transaction.
        `artifact`: its weights, which wait for the test.
        """
        incidents = [self._incident(row, failure, message or "")] if failure else []
        incidents += [self._incident(row, "oom", recovered)] if recovered else []
        shown = [attributes_statement(report_to, attributes)] if report_to is not None and attributes else []
        self._write(
            row,
            "done",
            also=[*incidents, *shown, *self._valid(row, artifact)],
            outcome=outcome,
            value=finite(value),
            train_value=finite(train_value),
            curve=training_text(curve, metrics),
            epoch=curve[-1].epoch if curve else 0,
            seconds=seconds,
            failure=failure,
            message=message,
            **_ended,
        )

    def fail(
        self,
        row: Row,
        *,
        kind: FailureKind,
        message: str,
        retry: bool,
        detail: str = "",
        signature: str | None = None,
    ) -> None:
        """Records a failure, also as an incident (see `incidents.incident_insert` for `detail` and `signature`).

        With `retry` the row waits for another attempt; otherwise it is done with outcome "failed".
        """
        why: dict[str, Any] = {"failure": kind, "message": message}
        incidents = [self._incident(row, kind, message, detail=detail, signature=signature)]
        if kind == "lost" and not retry:  # it ends the study for its losses, each of which is recorded already
            incidents = []
        if retry:
            self._write(row, "free", also=incidents, **why, lease_end=None)
        else:
            self._write(row, "done", also=incidents, **why, outcome="failed", **_ended)

    def note(self, row: Row, message: str | None) -> None:
        """Shows in `status` why a row makes no progress; None: it does again."""
        self._write(row, "held", message=message)

    def release(self, row: Row) -> None:
        """Frees the row without a failure: it waits for the next claim."""
        self._write(row, "free", lease_end=None)

    def reopen_failed(self) -> int:
        """Makes every row that failed and ended the study wait for another attempt; returns how many."""
        failed = and_(ledger.c.state == "done", ledger.c.outcome == "failed")
        again = {"state": "free", "outcome": None, "failure": None, "message": None, "finished": None}
        return self.storage.change(update(ledger).where(self._in_study, failed).values(**again))

    def row(self, row_id: int) -> Row:
        """The row with this id. StorageError if the study has none."""
        found = self.storage.rows(select(*ALL_COLUMNS).where(self._in_study, ledger.c.id == row_id))
        if not found:
            raise StorageError(f"{self.storage.masked}: study {self.study!r} has no ledger row {row_id}")
        return row_of(found[0])

    def search_row(self, row: Row) -> Row:
        """The search row of the same arm, block and ordinal. StorageError if there is none."""
        same = and_(*(getattr(ledger.c, name) == getattr(row, name) for name in ("arm", "block", "ordinal")))
        found = self.storage.rows(in_stage(select(*ALL_COLUMNS).where(self._in_study, same), "search"))
        if not found:
            raise StorageError(
                f"{self.storage.masked}: the search row of ledger row {row.id} is gone; restore a copy of the database"
            )
        return row_of(found[0])

    def rows(self, stage: Stage | None = None, *, curves: bool = True) -> list[Row]:
        """All rows, or those of one stage, in order of their ids. `curves`: False reads only those of running rows."""
        query = select(*(ALL_COLUMNS if curves else LIGHT)).where(self._in_study).order_by(ledger.c.id)
        return [row_of(found) for found in self.storage.rows(query if stage is None else in_stage(query, stage))]

    def counts(self) -> dict[tuple[str, Stage], Count]:
        """The number of rows in each condition, by (arm, stage); one query."""
        condition = case((ledger.c.state == "done", ledger.c.outcome), (waiting, "waiting"), else_="running")
        groups = (ledger.c.arm, ledger.c.stage, condition.label("condition"))
        query = select(*groups, func.count().label("rows")).where(self._in_study).group_by(*groups)
        counts: dict[tuple[str, Stage], Count] = defaultdict(Count)
        for found in self.storage.rows(query):
            setattr(counts[found["arm"], found["stage"]], found["condition"], found["rows"])
        return dict(counts)

    def abandoned(self) -> frozenset[int]:
        """Ids of rows held under an expired lease: their worker is gone, and they wait for another one."""
        found = self.storage.rows(select(ledger.c.id).where(self._in_study, expired))
        return frozenset(row["id"] for row in found)

    def work_done(self) -> tuple[int, int]:
        """(rows done, epochs recorded): a changed pair means that some worker made progress."""
        done = func.count(case((ledger.c.state == "done", 1))).label("done")
        epochs = func.coalesce(func.sum(ledger.c.epoch), 0).label("epochs")
        found = self.storage.rows(select(done, epochs).where(self._in_study))[0]
        return int(found["done"]), int(found["epochs"])

    def remaining(self, stage: Stage) -> int:
        """The number of rows of a stage that are not done (waiting or running); 0: the stage is done."""
        query = select(func.count().label("rows")).where(self._in_study, ledger.c.state != "done")
        return int(self.storage.rows(in_stage(query, stage))[0]["rows"])

    @property
    def _in_study(self) -> ColumnElement[bool]:
        return ledger.c.study == self.key

    @property
    def _lease_end(self) -> ColumnElement[float]:
        return Now() + self.lease_s

    def _missing(self, planned: Mapping[Key, PlannedRow]) -> list[PlannedRow]:
        columns = (getattr(ledger.c, name) for name in ("arm", "stage", "block", "ordinal", "role", "source"))
        there: set[tuple[Any, ...]] = {
            tuple(found.values()) for found in self.storage.rows(select(*columns).where(self._in_study))
        }
        return [row for key, row in planned.items() if key not in there]

    def _new(self, row: PlannedRow) -> dict[str, Any]:
        fields = {name: getattr(row, name) for name in ("arm", "stage", "block", "ordinal", "seed", "role")}
        begin = {"study": self.key, "state": "free", "attempt": 0, "epoch": 0, "source": row.source_number}
        return {**fields, **begin, "params": json.dumps(dict(row.params))}

    def _write(
        self,
        row: Row,
        then: State,
        *,
        where: ColumnElement[bool] = _always,
        also: Sequence[Executable] = (),
        **values: Any,
    ) -> None:
        """Writes as the owner of a row and sets its state to `then`; LeaseLost if another worker owns it.

        `also`: statements that are committed with it, or not at all.
        """
        fence = and_(ledger.c.id == row.id, ledger.c.attempt == row.attempt, ledger.c.owner == row.owner)
        write = update(ledger).where(fence, ledger.c.state == "held", where).values(state=then, **values)
        if change_with(self.storage, write, also):
            return
        found = self.storage.rows(select(ledger.c.state, ledger.c.trial).where(fence))
        state = found[0]["state"] if found else None
        if state == then == "held":
            raise StorageError(f"ledger row {row.id} has Optuna trial {found[0]['trial']}, not {values['trial']}")
        if state != then:
            raise LeaseLost(f"ledger row {row.id}: attempt {row.attempt} of {row.owner} is no longer its owner")
        # Otherwise it is already written: the response to the first try was lost, or the caller repeated the call.

    def _incident(self, row: Row, kind: FailureKind, message: str, **more: Any) -> Insert:
        return incident_insert(self.key, row, kind, message, **more)

    def _valid(self, row: Row, artifact: Artifact | None) -> Sequence[Executable]:
        return () if artifact is None else set_valid(self.study, row, artifact)


def finite(figure: float | None) -> float | None:
    """The number, or None if it is not finite: MySQL's columns accept no others, SQLite's store NaN as NULL."""
    return None if figure is None or not math.isfinite(figure) else figure
