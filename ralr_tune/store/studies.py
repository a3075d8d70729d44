"""Studies: this package's (a stored file with its fingerprint) and Optuna's (one for each of its arms and blocks)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy import Insert, exists, insert, literal, select, update
from sqlalchemy.exc import IntegrityError

from ralr_tune.errors import StorageError
from ralr_tune.metric import Metric
from ralr_tune.records import EpochRecord
from ralr_tune.store.database import Storage
from ralr_tune.store.failures import retry, transient
from ralr_tune.store.locks import TIMEOUT_S, named_lock
from ralr_tune.store.tables import Now, check_name, studies
from ralr_tune.store.texts import read_table

ROW_MARK = "ralr_tune:row"
"""Optuna user attribute of a trial: the id of the ledger row that it was asked for."""


@dataclass(frozen=True)
class StoredStudy:
    """A study as the database stores it."""

    name: str
    text: str
    """The study file."""
    fingerprint: str
    created: float
    """Seconds since 1970, the database's clock."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Versions and device of the first worker; empty before it started."""


def quiet_optuna() -> None:
    """Turns off Optuna's info messages ("A new study created"), which do not concern users; keeps its warnings."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def register(storage: Storage, *, name: str, text: str, fingerprint: str) -> StoredStudy:
    """Stores a study, unless one of this name exists; returns the stored one."""
    values = {"name": check_name("study", name), "text": text, "fingerprint": fingerprint, "created": Now()}
    if name not in names(storage):
        with suppress(IntegrityError):  # another process stored it first
            storage.change(insert(studies).values(**values))
    return stored(storage, name)


def stored(storage: Storage, name: str) -> StoredStudy:
    """The study of this name. StorageError, which lists the stored studies, if there is none."""
    found = storage.rows(select(studies).where(studies.c.name == name))
    if not found:
        known = ", ".join(names(storage)) or "none"
        raise StorageError(f"{storage.masked}: no study {name!r} is stored there; stored: {known}")
    environment = read_table(found[0]["environment"], f"study {name}: environment")
    return StoredStudy(**{**found[0], "environment": environment})


def fingerprint(storage: Storage, name: str) -> str | None:
    """The fingerprint of the stored study file: another one means that the file was replaced. None: no such study."""
    found = storage.rows(select(studies.c.fingerprint).where(studies.c.name == name))
    return found[0]["fingerprint"] if found else None


def update_text(storage: Storage, name: str, *, text: str, fingerprint: str) -> None:
    """Replaces the stored study file by a changed one. StorageError if there is none."""
    changed = update(studies).where(studies.c.name == name).values(text=text, fingerprint=fingerprint)
    if not storage.change(changed):
        stored(storage, name)


def names(storage: Storage) -> list[str]:
    """The names of all stored studies, oldest first."""
    return [found["name"] for found in storage.rows(select(studies.c.name).order_by(studies.c.created, studies.c.name))]


def set_environment(storage: Storage, name: str, environment: Mapping[str, str]) -> None:
    """Stores what the study runs on. Only the first call has an effect."""
    unset = (studies.c.name == name) & studies.c.environment.is_(None)
    storage.change(update(studies).where(unset).values(environment=json.dumps(dict(environment))))


def study_lock(storage: Storage, name: str, *, timeout_s: float = TIMEOUT_S) -> AbstractContextManager[None]:
    """A lock with one holder across all machines, for planning a study's next stage. Not reentrant.

    StorageError if another process keeps it for `timeout_s`. The lock is lost with its holder's connection, so work
    under it must still be safe to do twice.
    """
    return named_lock(storage.engine, f"study-{name}", timeout_s=timeout_s)


def optuna_name(study: str, arm: str, block: int = 1, generation: int = 1) -> str:
    """Name of the Optuna study of an arm: STUDY/ARM, then @2, ... for later generations, #2, ... for further blocks."""
    return f"{study}/{arm}" + (f"@{generation}" if generation > 1 else "") + (f"#{block}" if block > 1 else "")


def optuna_study(
    storage: Storage,
    name: str,
    *,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    metric: Metric | None = None,
) -> optuna.Study:
    """The Optuna study of this name (see `optuna_name`); created if it does not exist and a metric is given.

    Optuna stores neither sampler nor pruner, and uses TPE and median if none is given. It stores the direction of the
    metric, and its name for display. StorageError if there is no such study, if it has another direction, or if the
    database confuses its name with another one.
    """
    try:
        if metric is None:
            study = optuna.load_study(study_name=name, storage=storage.optuna, sampler=sampler, pruner=pruner)
        else:
            study = optuna.create_study(
                study_name=name,
                storage=storage.optuna,
                sampler=sampler,
                pruner=pruner,
                direction=metric.direction,
                load_if_exists=True,
            )
    except KeyError:
        raise StorageError(f"{storage.masked}: no Optuna study {name!r} is stored there") from None
    _check_identity(storage, study, name)
    if metric is not None:
        _check_direction(study, metric)
        _name_metric(study, metric)
    return study


def _check_direction(study: optuna.Study, metric: Metric) -> None:
    stored = study.direction.name.lower()
    if stored != metric.direction:
        raise StorageError(
            f"Optuna study {study.study_name!r} was created to {stored}, not to {metric.direction}; rename the study"
        )


def _name_metric(study: optuna.Study, metric: Metric) -> None:
    if study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([metric.name])


def _check_identity(storage: Storage, study: optuna.Study, name: str) -> None:
    """MySQL's default collation ignores case: a query for `s/ralr` finds `s/RALR`; two arms would share one study."""
    there = storage.optuna.get_study_name_from_id(study._study_id)
    if there != name:
        raise StorageError(
            f"{storage.masked}: {name!r} and {there!r} are the same name to this database; rename an arm"
        )


def optuna_trials(storage: Storage, name: str) -> dict[int, FrozenTrial]:
    """Trials of an Optuna study by number; none if there is no such study."""
    try:
        study_id = storage.optuna.get_study_id_from_name(name)
    except KeyError:
        return {}
    return {trial.number: trial for trial in storage.optuna.get_all_trials(study_id, deepcopy=False)}


def running_trials(storage: Storage, name: str) -> dict[int, FrozenTrial]:
    """The running trials, by number: a few, queried by state, since Optuna's cache would read all trials first."""
    try:
        return {trial.number: trial for trial in storage.trials(name, TrialState.RUNNING)}
    except KeyError:
        return {}


def ask(study: optuna.Study, storage: Storage, row_id: int, fixed: Mapping[str, Any] | None = None) -> Trial:
    """A new running trial that is created with the mark of its ledger row.

    With `Study.ask`, the mark could only be set afterwards: a crash in between would leave a running trial without a
    row. `fixed`: values that `suggest` must return (as in `Study.enqueue_trial`).
    """
    _clear_trial_cache(study)
    template = create_trial(
        state=TrialState.RUNNING,
        user_attrs={ROW_MARK: row_id},
        system_attrs={"fixed_params": dict(fixed)} if fixed else {},
    )

    def make() -> int:
        return storage.optuna.create_new_trial(study._study_id, template)

    try:
        return Trial(study, make())
    except StorageError as error:
        if not transient(error):
            raise
    # The trial may have been created although the response was lost: check for it before every retry.
    return Trial(study, retry(lambda: _find_created(study, row_id) or make()))


def _find_created(study: optuna.Study, row_id: int) -> int | None:
    """Id of a running trial that was created for a row."""
    running = study._storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.RUNNING,))
    return next((trial._trial_id for trial in running if trial.user_attrs.get(ROW_MARK) == row_id), None)


def resume_trial(study: optuna.Study, number: int) -> Trial:
    """The running trial with this number, to be continued by this process, with its stored parameters and reports.

    StorageError if the study has no such trial, or if it is finished.
    """
    _clear_trial_cache(study)
    # Optuna's cache can only set parameters of trials that it has listed; with a sampler that never lists them
    # (random), `suggest` would raise KeyError.
    trial = {trial.number: trial for trial in study.get_trials(deepcopy=False)}.get(number)
    if trial is None:
        raise StorageError(f"Optuna study {study.study_name!r} has no trial {number}")
    if trial.state != TrialState.RUNNING:
        raise StorageError(f"trial {number} of Optuna study {study.study_name!r} is {trial.state.name}, not RUNNING")
    return Trial(study, trial._trial_id)


def report_statement(trial_id: int, record: EpochRecord) -> Insert:
    """The statement that reports an epoch to the Optuna trial with this id, unless that epoch is already reported."""
    table = models.TrialIntermediateValueModel.__table__
    stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(record.value)
    there = exists().where(table.c.trial_id == trial_id, table.c.step == record.epoch)
    columns = (table.c.trial_id, table.c.step, table.c.intermediate_value, table.c.intermediate_value_type)
    values = (trial_id, record.epoch, *stored)
    row = (literal(value, column.type) for value, column in zip(values, columns, strict=True))
    return insert(table).from_select(columns, select(*row).where(~there))


def attributes_statement(trial_id: int, attributes: Mapping[str, Any]) -> Insert:
    """The statement that adds user attributes to the Optuna trial with this id; it must not have them yet."""
    rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]
    return insert(models.TrialUserAttributeModel.__table__).values(rows)


def cache_report(trial: Trial, record: EpochRecord) -> None:
    """Adds what `report_statement` wrote to this process's copy of a trial: the pruner reads it there."""
    trial._cached_frozen_trial.intermediate_values.setdefault(record.epoch, record.value)


def stored_params(storage: Storage, trial: Trial) -> dict[str, Any]:
    """Parameters of a trial as the database stores them.

    The first stored value of a parameter stays, whichever worker suggested it: a worker that had lost the row may have
    been faster than its new owner, which must train with the stored value.
    """
    return dict(storage.optuna.get_trial(trial._trial_id).params)


def mark_trial(study: optuna.Study, storage: Storage, number: int, key: str, value: Any) -> None:
    """Sets a user attribute of a trial, unless it is finished (Optuna does not allow that)."""
    trial = {trial.number: trial for trial in study.get_trials(deepcopy=False)}[number]
    if not trial.state.is_finished():
        storage.optuna.set_trial_user_attr(trial._trial_id, key, value)


def _clear_trial_cache(study: optuna.Study) -> None:
    """As at the start of `Study.ask`: samplers and pruners must see what other workers did since the last trial."""
    study._thread_local.cached_all_trials = None
