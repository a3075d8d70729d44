"""Reads a study: everything that the database stores of it, as the records that `analysis` and `status` use."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial
from sqlalchemy import select

from ralr_tune.records import ArmRecord, EpochRecord, Generation, Row, StudyRecord, WarmStart
from ralr_tune.store import generations, starts
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.rows import ALL_COLUMNS, row_of
from ralr_tune.store.studies import StoredStudy, optuna_name, optuna_trials, stored
from ralr_tune.store.tables import ledger as table
from ralr_tune.studyfile import StudySpec, parse_study

Trials = Mapping[tuple[str, int], Mapping[int, FrozenTrial]]
"""Optuna trials by (arm, block) and number."""


def read_study(storage: Storage, name: str, *, curves: bool = True) -> StudyRecord:
    """The whole study: its file, its rows by arm (arms in the file's order), search parameters from Optuna.

    The curve of a search row that is not done contains the values reported so far and nothing else. Without `curves`,
    done rows have none and are quick to read. StorageError if no such study is stored; StudyFileError if this version
    cannot read the stored file.
    """
    kept = stored(storage, name)
    rows, states = _rows(storage, name, curves), generations.every(storage, name)
    return study_record(kept, rows, states, storage.masked, _start(storage, kept))


def study_record(
    kept: StoredStudy, rows: Sequence[Row], states: Sequence[Generation], source: str, start: WarmStart | None = None
) -> StudyRecord:
    """The record of a study from its stored parts; `states`: its generations, `source`: where they were read, `start`:
    what it took from an earlier study.

    StudyFileError if this version cannot read the stored file.
    """
    spec = _spec(kept)
    return StudyRecord(
        name=kept.name,
        spec_text=kept.text,
        fingerprint=kept.fingerprint,
        storage=source,
        created=kept.created,
        environment=kept.environment,
        baseline=spec.study.baseline,
        metric=spec.metric,
        prune_metric=spec.prune_metric,
        known_metrics=spec.kind.metrics_of(spec.task),
        margin=spec.margin,
        confidence=spec.confirm.confidence,
        arms={arm: _arm(spec, arm, rows) for arm in spec.arms},
        generations=tuple(states),
        cost_per_hour=spec.study.cost_per_hour,
        divided=spec.search.divided,
        start=start,
    )


def _spec(kept: StoredStudy) -> StudySpec:
    return parse_study(kept.text, source=f"{kept.name} (as stored)", fingerprint=kept.fingerprint)


def _start(storage: Storage, kept: StoredStudy) -> WarmStart | None:
    """What the study took from an earlier one; None before `run` has prepared it."""
    spec = _spec(kept)
    if spec.search.start_from is None:
        return None
    return starts.first(storage, map(Ledger(storage, kept.name).optuna_name, spec.arms))


def stored_spec(record: StudyRecord) -> StudySpec:
    """The study file that a record holds."""
    return parse_study(record.spec_text, source=f"{record.name} (as stored)", fingerprint=record.fingerprint)


def read_rows(storage: Storage, study: str, generation: int, ids: Sequence[int]) -> list[Row]:
    """Rows of a generation by their ids, in the order of the table, with their curves and search parameters.

    For a few rows of a large study: the cost does not grow with the study.
    """
    rows = [row_of(found) for found in storage.rows(select(*ALL_COLUMNS).where(table.c.id.in_(ids)))]
    numbers: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row in rows:
        if row.trial is not None:
            numbers[row.arm, row.block].append(row.trial)
    params = {
        place: storage.params(optuna_name(study, *place, generation), trials) for place, trials in numbers.items()
    }
    return [
        row if row.trial is None else replace(row, params=params[row.arm, row.block].get(row.trial, {}))
        for row in sorted(rows, key=lambda row: row.id)
    ]


def _rows(storage: Storage, name: str, curves: bool) -> list[Row]:
    ledger = Ledger(storage, name)
    rows = ledger.rows(curves=curves)
    places = sorted({(row.arm, row.block) for row in rows if row.trial is not None})
    trials = {place: optuna_trials(storage, ledger.optuna_name(*place)) for place in places}
    return [_with_trial(row, trials) for row in rows]


def _arm(spec: StudySpec, arm: str, rows: Sequence[Row]) -> ArmRecord:
    own = tuple(row for row in rows if row.arm == arm)
    return ArmRecord(arm, spec.dimensions(arm), own, spec.settings(arm))


def _with_trial(row: Row, trials: Trials) -> Row:
    """A search row with the parameters and reports of its Optuna trial."""
    trial = None if row.trial is None else trials[row.arm, row.block].get(row.trial)
    if trial is None:
        return row
    return replace(row, params=dict(trial.params), curve=row.curve if row.state == "done" else _reported(trial))


def _reported(trial: FrozenTrial) -> tuple[EpochRecord, ...]:
    """Reported values as epochs; a step is the number of epochs done. Fields that are not reported are NaN."""
    unknown = math.nan
    return tuple(
        EpochRecord(step, value, train_loss=unknown, lr=unknown, factor=unknown, seconds=unknown)
        for step, value in sorted(trial.intermediate_values.items())
    )
