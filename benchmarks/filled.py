"""A study with thousands of finished trials, written directly into the tables: minutes of searching in seconds.

The simulated task and its own curves, as workers would have left them: every row done, every Optuna trial finished,
a fifth of them pruned at a random epoch. Parameters are random, too: there is no search.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

import tomli_w
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import Connection, Table, bindparam, insert, select, update

from ralr_tune.records import EpochRecord, Row
from ralr_tune.search.samplers import longest_run
from ralr_tune.search.space import distribution
from ralr_tune.search.stages import plan_search
from ralr_tune.search.tasks import Tasks
from ralr_tune.store import studies
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.tables import ledger as rows_table
from ralr_tune.store.texts import training_text
from ralr_tune.studyfile import StudySpec, parse_study

EPOCHS = 30
PRUNED = 0.2
"""Share of the trials."""
PART = 500
"""Trials per write."""

_AMPLIFY = {
    "probability": {"low": 0.05, "high": 0.6},
    "lower": {"low": 1.0, "high": 2.0},
    "width": {"low": 0.0, "high": 4.0},
}
_TABLES: dict[str, Any] = {
    "study": {"name": "large", "baseline": "monotone"},
    "training": {
        "batch_size": 32,
        "lr": {"low": 1e-3, "high": 1.0, "log": True},
        "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True},
    },
    "schedule": {"name": "cosine"},
    "arms": {"monotone": {}, "ralr": {"amplify": _AMPLIFY}},
}


def study(trials: int, *, epochs: int = EPOCHS, seconds_per_epoch: float = 0.0, **search: Any) -> StudySpec:
    """Two arms, five parameters in the larger one, `trials` per arm; `search`: keys of that table."""
    data = {"optimum": 0.1, "diverges_above": 100.0, "seconds_per_epoch": seconds_per_epoch}
    training = _TABLES["training"] | {"epochs": epochs}
    tables = _TABLES | {
        "task": {"kind": "simulated", "data": data},
        "training": training,
        "search": {"trials": trials, "audit": 0.0} | search,
    }
    return parse_study(tomli_w.dumps(tables))


@dataclass(frozen=True)
class _Trial:
    """One finished trial, before it is written."""

    row: Row
    params: dict[str, float]
    curve: list[EpochRecord]
    pruned: bool


def fill(storage: Storage, spec: StudySpec, *, free: int = 0) -> Ledger:
    """Register and plan the study and finish all its search rows, except the last `free` of each arm."""
    studies.register(storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
    ledger = Ledger(storage, spec.name, spec.storage.lease_s)
    plan_search(ledger, spec, spec.search.trials)
    rows = ledger.rows("search", curves=False)
    for arm in spec.arms:
        own = [row for row in rows if row.arm == arm][: spec.search.trials - free]
        _fill_arm(storage, spec, arm, own)
    return ledger


def _fill_arm(storage: Storage, spec: StudySpec, arm: str, rows: Sequence[Row]) -> None:
    study = studies.optuna_study(storage, studies.optuna_name(spec.name, arm), metric=spec.metric)
    space = {name: distribution(domain) for name, domain in spec.space(arm).items()}
    trials = _finished(spec, rows, space)
    while part := list(islice(trials, PART)):
        storage.transact(partial(_write, study_id=study._study_id, part=part, space=space))


def _finished(spec: StudySpec, rows: Sequence[Row], space: dict[str, BaseDistribution]) -> Iterator[_Trial]:
    task = Tasks(spec, device="cpu").of({})
    drawn, longest = random.Random(0), longest_run(spec)
    for row in rows:
        params = {name: _drawn(drawn, domain) for name, domain in space.items()}
        course = task.trajectory(spec.configuration(row.arm, params), seed=row.seed)  # type: ignore[attr-defined]
        pruned = drawn.random() < PRUNED
        epochs = drawn.randrange(1, longest) if pruned else longest
        curve = [
            EpochRecord(epoch, course.point(epoch), 0.5, course.rates[epoch - 1], course.factors[epoch - 1], 0.01)
            for epoch in range(1, epochs + 1)
        ]
        yield _Trial(row, params, curve, pruned)


def _drawn(drawn: random.Random, domain: Any) -> float:
    if domain.log:
        return math.exp(drawn.uniform(math.log(domain.low), math.log(domain.high)))
    return drawn.uniform(domain.low, domain.high)


def _write(connection: Connection, study_id: int, part: Sequence[_Trial], space: dict[str, BaseDistribution]) -> None:
    """Optuna's trials with their dependent rows, and their ledger rows."""
    trials: Table = models.TrialModel.__table__
    now = datetime.now(UTC).replace(tzinfo=None)  # as Optuna stores it
    heads = [
        {
            "number": trial.row.ordinal,
            "study_id": study_id,
            "state": TrialState.PRUNED if trial.pruned else TrialState.COMPLETE,
            "datetime_start": now,
            "datetime_complete": now,
        }
        for trial in part
    ]
    connection.execute(insert(trials), heads)
    numbers = [trial.row.ordinal for trial in part]
    query = select(trials.c.number, trials.c.trial_id).where(trials.c.study_id == study_id)
    ids = dict(map(tuple, connection.execute(query.where(trials.c.number.between(min(numbers), max(numbers))))))
    for table, entries in _dependent_rows(part, ids, space).items():
        connection.execute(insert(table), entries)
    done = update(rows_table).where(rows_table.c.id == bindparam("row"))
    connection.execute(done, [_done(trial) for trial in part])


def _dependent_rows(
    part: Sequence[_Trial], ids: dict[int, int], space: dict[str, BaseDistribution]
) -> dict[Table, list[dict[str, Any]]]:
    domains = {name: distribution_to_json(domain) for name, domain in space.items()}
    found: dict[Table, list[dict[str, Any]]] = {
        model.__table__: []
        for model in (
            models.TrialParamModel,
            models.TrialValueModel,
            models.TrialIntermediateValueModel,
            models.TrialUserAttributeModel,
        )
    }
    params, values, reports, marks = found.values()
    for trial in part:
        own = {"trial_id": ids[trial.row.ordinal]}
        params += [
            own | {"param_name": name, "param_value": value, "distribution_json": domains[name]}
            for name, value in trial.params.items()
        ]
        last = {
            "objective": 0,
            "value": trial.curve[-1].value,
            "value_type": models.TrialValueModel.TrialValueType.FINITE,
        }
        values.append(own | last)
        finite = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
        reports += [
            own | {"step": record.epoch, "intermediate_value": record.value, "intermediate_value_type": finite}
            for record in trial.curve
        ]
        marks.append(own | {"key": studies.ROW_MARK, "value_json": json.dumps(trial.row.id)})
    return found


def _done(trial: _Trial) -> dict[str, Any]:
    last = trial.curve[-1]
    return {
        "row": trial.row.id,
        "state": "done",
        "attempt": 1,
        "owner": "filled",
        "trial": trial.row.ordinal,
        "outcome": "pruned" if trial.pruned else "complete",
        "epoch": last.epoch,
        "value": last.value,
        "train_value": None if trial.pruned else last.value + 0.01,
        "curve": training_text(trial.curve, ()),
        "seconds": 0.01 * last.epoch,
        "started": 0.0,
        "finished": 1.0,
    }
