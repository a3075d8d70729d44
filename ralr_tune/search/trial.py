"""One row of the ledger, from claim to done: ask, train, report, prune, write down, tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from optuna.study import Study
from optuna.trial import Trial as OptunaTrial
from optuna.trial import TrialState

from ralr_tune.errors import DataError, FailureKind, Interrupted, LeaseLost, StorageError, TrialError
from ralr_tune.records import EpochRecord, Outcome, Row
from ralr_tune.search.samplers import make_pruner, make_sampler, start_recipe
from ralr_tune.search.session import Lease, Session
from ralr_tune.search.space import suggest
from ralr_tune.spec import Configuration
from ralr_tune.store import studies
from ralr_tune.store.mending import find_orphan, strays, unsettled
from ralr_tune.training.base import Trial
from ralr_tune.training.start import start

log = logging.getLogger(__name__)

HOPELESS: tuple[FailureKind, ...] = ("diverged", "oom")
"""Failures of the configuration itself: told to the sampler, never tried again."""

Verdict = Callable[[EpochRecord], bool]
"""Whether to end the trial after this epoch."""


@dataclass(frozen=True)
class Ending:
    """How a trial ended."""

    outcome: Outcome
    failure: FailureKind | None = None
    message: str | None = None


def work_on(session: Session, row: Row) -> None:
    """Bring one claimed row to its end, whatever that is; a lost lease ends quietly.

    Raises Interrupted (the row is free again) when asked to stop, TrialError when the failure ends the study.
    """
    work = {"search": _search, "choose": _confirm, "judge": _confirm, "test": _test}[row.stage]
    lease = Lease(session.ledger, row)
    try:
        with lease.held():
            _guarded(session, row, lease, work)
    except LeaseLost as lost:
        log.warning("%s", lost)


def _guarded(session: Session, row: Row, lease: Lease, work: Callable[[Session, Row, Lease], None]) -> None:
    """Whatever the work raises becomes what the ledger says of the row."""
    try:
        work(session, row, lease)
    except Interrupted:
        session.ledger.release(row)
        raise
    except StorageError:
        raise
    except Exception as error:
        kind = _kind(error)
        if kind in HOPELESS:  # before the first epoch or after the last one; `_follow` sees to those between
            _lose(session, row, kind, str(error))
            return
        log.exception("row %d (arm %s, %s %d) failed", row.id, row.arm, row.stage, row.ordinal)
        _give_up(session, row, kind, error)


def _kind(error: Exception) -> FailureKind:
    if isinstance(error, TrialError):
        return error.kind
    return "data" if isinstance(error, DataError) else "bug"


def _lose(session: Session, row: Row, kind: FailureKind, message: str) -> None:
    """The configuration is at fault: it counts as a trial, with no value."""
    session.ledger.finish(row, outcome="diverged", value=None, curve=(), seconds=0.0, failure=kind, message=message)
    session.checkpoint(row).unlink(missing_ok=True)
    if row.stage == "search":
        tell(session, session.ledger.row(row.id))


def _give_up(session: Session, row: Row, kind: FailureKind, error: Exception) -> None:
    """A bug is tried once more (it may be the machine's); the second one in a row, and bad data, end the study."""
    retry = kind == "bug" and row.failure != "bug"
    session.ledger.fail(row, kind=kind, message=f"{type(error).__name__}: {error}", retry=retry)
    if not retry:
        where = f"arm {row.arm}, {row.stage} {row.ordinal}"
        raise TrialError(kind, f"{where} failed: {type(error).__name__}: {error}") from error


# ---------------------------------------------------------------- the three kinds of work


def _search(session: Session, row: Row, lease: Lease) -> None:
    study = _study(session, row)
    asked = _asked(session, study, row)
    params = suggest(asked, session.spec.space(row.arm))
    configuration = session.spec.configuration(row.arm, params)
    trial = _start(session, row, configuration)
    reported = studies.reported_steps(study, asked.number)

    def report(record: EpochRecord) -> None:
        # Across processes the database would overwrite a step, so what stands there stays.
        if record.epoch not in reported:
            asked.report(record.value, record.epoch)

    def prune(record: EpochRecord) -> bool:
        report(record)
        return record.epoch < configuration.training.epochs and asked.should_prune()

    for record in trial.curve[:-1]:
        report(record)
    ending = _follow(session, row, trial, lease, prune)
    _finish(session, row, trial, ending)
    tell(session, session.ledger.row(row.id), study)


def _confirm(session: Session, row: Row, lease: Lease) -> None:
    trial = _start(session, row, session.configuration(row))
    ending = _follow(session, row, trial, lease, lambda record: False)
    if row.stage == "judge" and ending.outcome == "complete":
        trial.save_weights(session.weights(row))
    _finish(session, row, trial, ending)


def _test(session: Session, row: Row, lease: Lease) -> None:
    """Read the test split with the weights of the judged run; trains again (same seed) where they are not here."""
    trial = _start(session, row, session.configuration(row))
    ending = Ending("complete")
    try:
        trial.load_weights(session.weights(row))
    except DataError:  # judged on another machine, or the folder is gone
        ending = _follow(session, row, trial, lease, lambda record: False)
    value = trial.evaluate("test") if ending.outcome == "complete" else None
    _finish(session, row, trial, ending, value=value)
    session.weights(row).unlink(missing_ok=True)


# ---------------------------------------------------------------- what they share


def _start(session: Session, row: Row, configuration: Configuration) -> Trial:
    return start(session.task, configuration, seed=row.seed, checkpoint=session.checkpoint(row))


def _follow(session: Session, row: Row, trial: Trial, lease: Lease, verdict: Verdict) -> Ending:
    """Train epoch by epoch; every epoch is first fenced by the ledger and only then reported."""
    try:
        if trial.curve and verdict(trial.curve[-1]):  # it was killed between a report and its verdict
            return Ending("pruned")
        with closing(trial.epochs()) as epochs:
            while (record := _next(session, epochs)) is not None:
                lease.check()
                session.ledger.beat(row, epoch=record.epoch, value=record.value)
                if verdict(record):
                    return Ending("pruned")
    except TrialError as error:
        if error.kind not in HOPELESS:
            raise
        return Ending("diverged", error.kind, str(error))
    return Ending("complete")


def _next(session: Session, epochs: Iterator[EpochRecord]) -> EpochRecord | None:
    with session.stop.interruptible():
        return next(epochs, None)


def _finish(session: Session, row: Row, trial: Trial, ending: Ending, value: float | None = None) -> None:
    complete = ending.outcome == "complete"
    if value is None and trial.curve and ending.outcome != "diverged":
        value = trial.curve[-1].value
    session.ledger.finish(
        row,
        outcome=ending.outcome,
        value=value,
        curve=trial.curve,
        train_value=trial.train_value() if complete and row.stage != "test" else None,
        seconds=sum(record.seconds for record in trial.curve),
        failure=ending.failure,
        message=ending.message,
    )
    session.checkpoint(row).unlink(missing_ok=True)


# ---------------------------------------------------------------- Optuna's side


def _study(session: Session, row: Row) -> Study:
    sampler = make_sampler(session.spec, row.arm, row.block, row.ordinal)
    name = studies.optuna_name(session.spec.name, row.arm, row.block)
    return studies.optuna_study(session.storage, name, sampler=sampler, pruner=make_pruner(session.spec))


def _asked(session: Session, study: Study, row: Row) -> OptunaTrial:
    """The Optuna trial of a row: the one that it has, an orphan that was asked for it, or a new one."""
    number = row.trial
    if number is None and row.attempt > 1:
        number = find_orphan(session.ledger, row)
    if number is None:
        recipe = start_recipe(session.spec, row.arm, row.ordinal)
        asked = studies.ask(study, session.storage, row.id, fixed=recipe)
    else:
        asked = studies.resume_trial(study, number)
    if row.trial is None:
        session.ledger.attach(row, asked.number)
    return asked


def tell(session: Session, row: Row, study: Study | None = None) -> None:
    """Tell Optuna what a done search row says; safe to repeat.

    A diverged configuration is told as COMPLETE at the metric's worst value, since samplers ignore FAIL and rank PRUNED
    by the length of its curve.
    """
    study = study or _study(session, row)
    assert row.trial is not None
    if row.outcome == "pruned":
        study.tell(row.trial, state=TrialState.PRUNED, skip_if_finished=True)
        return
    value = row.value
    if row.outcome == "diverged":
        studies.mark_trial(study, session.storage, row.trial, "ralr_tune:diverged", row.failure)
        value = session.task.metric.worst
    study.tell(row.trial, value, skip_if_finished=True)


def settle(session: Session) -> None:
    """Mend what crashes left in Optuna: tell of rows that are done but untold, end trials that no row will adopt."""
    for row in unsettled(session.ledger):
        tell(session, row)
    for name, number in strays(session.ledger):
        study = studies.optuna_study(session.storage, name)
        study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
