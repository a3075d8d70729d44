"""One row of the ledger, from claim to done: ask, train, report, prune, record the outcome, tell."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import Trial as OptunaTrial

from ralr_tune.errors import DataError, DiskError, FailureKind, Interrupted, LeaseLost, StorageError, TrialError
from ralr_tune.records import EpochRecord, MetricSeries, Outcome, Row, Stage, epoch_series, test_series
from ralr_tune.search import audits
from ralr_tune.search.artifacts import confirm_configuration, remove, run_of
from ralr_tune.search.examples import keep_examples
from ralr_tune.search.failing import (
    CONFIGURATION_FAILURES,
    clean_message,
    end_if_lost_repeatedly,
    kind_of,
    record_diverged,
    retry_or_end,
)
from ralr_tune.search.pruning import Judge, amplified_epochs, other_curve
from ralr_tune.search.samplers import start_recipe
from ralr_tune.search.session import Lease, Session, Training
from ralr_tune.search.space import suggest
from ralr_tune.search.telling import optuna_study, tell
from ralr_tune.search.warm_start import MOST, kept_start, recipe_of
from ralr_tune.store import studies
from ralr_tune.store.artifacts import Artifact
from ralr_tune.store.recovery import find_orphan
from ralr_tune.studyfile import Configuration
from ralr_tune.tasks.trial import Trial, TrialStage

log = logging.getLogger(__name__)

_STAGES: Mapping[Stage, TrialStage] = {
    "search": "search", "audit": "search", "choose": "confirm", "judge": "confirm", "test": "confirm",
}  # fmt: skip
"""What a trial of a row is for, as the code that it trains is told; `evaluate` makes it "test"."""

Report = Callable[[EpochRecord, Artifact | None], None]
"""Records an epoch, with the object in the store from which it can be resumed; LeaseLost if another worker owns the
row."""
Verdict = Callable[[EpochRecord], bool]
"""Whether to end the trial after this epoch."""


@dataclass(frozen=True)
class Ending:
    """How a trial ended."""

    outcome: Outcome
    failure: FailureKind | None = None
    message: str | None = None


Work = Generator[Trial, None, None]
"""Work on a row, which yields its trial before every epoch. The caller may train this epoch fused with other trials
(see training.fusion) before it resumes the generator; otherwise the trial trains it by itself."""


def work_on(session: Session, row: Row) -> None:
    """Work on one claimed row until it ends; returns without an error if the lease is lost.

    Raises Interrupted (the row is free again) when a stop is requested, TrialError if a failure ends the study.
    """
    for _ in epochs_of(session, row):
        pass


def epochs_of(session: Session, row: Row) -> Work:
    """`work_on`, epoch by epoch. Throwing Interrupted into the generator frees the row."""
    work = {"search": _search, "audit": _audit, "choose": _confirm, "judge": _confirm, "test": _test}[row.stage]
    lease = Lease(session.ledger, row)
    try:
        with lease.held():
            end_if_lost_repeatedly(session, row)
            yield from _guarded(session, row, lease, work)
    except LeaseLost as lost:
        log.warning("%s", lost)
        _remove_files_if_done(session, row)


def _remove_files_if_done(session: Session, row: Row) -> None:
    """Remove this worker's files if the row (and its audit) is done: its new owner removed files before these came."""
    rows = session.ledger.rows(curves=False)
    over = {each.id for each in rows if each.state == "done"} - {each.id for each in audits.waiting(session.spec, rows)}
    if row.id in over:
        session.artifacts.forget(row)


def _guarded(session: Session, row: Row, lease: Lease, work: Callable[[Session, Row, Lease], Work]) -> Work:
    """Record errors that the work raises in the ledger."""
    try:
        yield from work(session, row, lease)
    except (Interrupted, DiskError):  # nothing is wrong with the trial
        session.ledger.release(row)
        raise
    except LeaseLost:
        raise
    except StorageError:
        session.ledger.renew_lease(row)  # LeaseLost if the cause is that a new owner has finished the row's trial
        raise
    except Exception as error:
        kind = kind_of(error)
        if kind in CONFIGURATION_FAILURES:  # before the first or after the last epoch; `_follow` handles those between
            record_diverged(session, row, kind, str(error))
        else:
            retry_or_end(session, row, kind, error)
    finally:
        if session.published is not None:
            session.published.end_log(row)


# ---------------------------------------------------------------- the kinds of work


def _search(session: Session, row: Row, lease: Lease) -> Work:
    study = optuna_study(session, row)
    asked = _asked(session, study, row)
    configuration = session.spec.configuration(row.arm, _suggested(session, asked, row))
    trial = _start(session, row, lease, configuration)
    seen = session.spec.prune_metric
    judge = Judge(study, session.spec.search.prune_on, seen)
    amplified = amplified_epochs(session.spec, configuration, row.seed)

    def report(record: EpochRecord, artifact: Artifact | None) -> None:
        session.ledger.progress(row, record, curve=trial.curve, report_to=asked._trial_id, artifact=artifact)
        studies.cache_report(asked, record)

    def prune(record: EpochRecord) -> bool:
        return record.epoch < configuration.training.epochs and judge.should_prune(asked, trial.curve, amplified)

    for record in trial.curve:  # from an earlier attempt, which may have died before it reported its last epoch
        report(record, None)
    ending = yield from _follow(session, row, trial, lease, report, prune)
    audited = ending.outcome == "pruned" and _is_audited(session, row)
    attributes = {
        "seed": row.seed,
        "configuration": json.dumps(configuration.model_dump(mode="json", exclude_defaults=True)),
        "device hours": float(f"{_seconds(trial) / 3600:.3g}"),
        "checkpoint": "kept until its audit is done" if audited else "removed when the trial ended",
        **({} if seen is None else other_curve(seen, trial.curve)),
    }
    _finish(session, row, trial, ending, forget=not audited, attributes=attributes, report_to=asked._trial_id)
    tell(session, session.ledger.row(row.id), study)


def _is_audited(session: Session, row: Row) -> bool:
    trials = max(count.budget for (_, stage), count in session.ledger.counts().items() if stage == "search")
    return audits.is_sampled(session.spec, row, trials)


def _audit(session: Session, row: Row, lease: Lease) -> Work:
    """Train a pruned trial to its end, from the epoch at which it was pruned if its checkpoint exists here. Nothing is
    reported to Optuna."""
    pruned = session.ledger.search_row(row)
    configuration = session.spec.configuration(row.arm, row.params)
    trial = _start(session, row, lease, configuration, also=pruned)
    ending = yield from _trained(session, row, trial, lease)
    _finish(session, row, trial, ending, trained_elsewhere=pruned.curve)
    session.forget(pruned)


def _confirm(session: Session, row: Row, lease: Lease) -> Work:
    trial = _start(session, row, lease, confirm_configuration(session.spec, row))
    ending = yield from _trained(session, row, trial, lease)
    artifact = None
    keep = row.stage == "judge" and ending.outcome == "complete"
    if keep:
        trial.save_weights(session.artifacts.draft(row))
        if session.published is not None:
            artifact = session.published.weights(
                row, trial.curve[-1].epoch, lease.waiting(session.published, session.stop)
            )
        keep_examples(session, row, trial)
    _finish(session, row, trial, ending, forget=not keep, artifact=artifact)
    if keep:  # only now is it certain that this attempt finished the row
        with suppress(OSError):  # without the weights, the test trains again
            session.artifacts.draft(row).replace(session.artifacts.weights(row))
        session.artifacts.forget(row)
        if session.published is not None and artifact is not None:
            session.published.keep_only(row, artifact)


def _test(session: Session, row: Row, lease: Lease) -> Work:
    """Evaluate the judged run's weights on the test split; train again (same seed) if they are not on this machine."""
    configuration = confirm_configuration(session.spec, row)
    trial = _start(session, row, lease, configuration)
    judged = _judged(session, row)
    if session.published is not None and judged is not None:
        session.published.fetch_weights(judged, lease.waiting(session.published, session.stop))
    ending = Ending("complete")
    try:
        trial.load_weights(session.artifacts.weights(row))
    except DataError:  # the run was judged on another machine, or the folder was deleted
        ending = yield from _trained(session, row, trial, lease)
    with session.stop.interruptible():
        value, others = (
            _tested(session, trial, configuration.training.epochs) if ending.outcome == "complete" else (None, ())
        )
    _finish(session, row, trial, ending, value=value, others=others)
    remove(session.artifacts.weights(row))
    if session.published is not None and judged is not None:
        session.published.forget(judged)


def _tested(session: Session, trial: Trial, epochs: int) -> tuple[float, tuple[MetricSeries, ...]]:
    """The metric on the test split, and what else its evaluation measures."""
    measure = getattr(trial, "evaluate_all", None)  # not of a program's trial
    if measure is None:
        return trial.evaluate("test"), ()
    measured = dict(measure("test"))
    value: float = measured.pop(session.spec.metric.name)
    return value, test_series(measured, epochs)


def _judged(session: Session, row: Row) -> Row | None:
    """The judge row of a test row, if its weights may be in a store."""
    if session.published is None:
        return None
    judged = session.ledger.rows("judge", curves=False)
    return next((each for each in judged if run_of(each) == run_of(row)), None)


# ---------------------------------------------------------------- shared by all kinds of work


def _start(session: Session, row: Row, lease: Lease, configuration: Configuration, also: Row | None = None) -> Trial:
    """`also`: another row with the same configuration and seed, whose checkpoints serve if `row` has none."""
    own, earlier = session.artifacts.checkpoint(row), _earlier(session, row, lease, also)
    task = session.tasks.of(configuration.task)
    trial = session.spec.kind.trial_in_stage(
        task, configuration, stage=_STAGES[row.stage], seed=row.seed, checkpoint=own, earlier=earlier
    )
    log_file = getattr(trial, "log", None)  # only of a program's trial
    if session.published is not None and log_file is not None:
        session.published.follow_log(row, log_file)
    return trial


def _earlier(session: Session, row: Row, lease: Lease, also: Row | None) -> list[Path]:
    """The checkpoints to resume from, the preferred one first: what the store holds, then what is in this folder."""
    fetched = []
    if row.paused:  # by a worker that was killed while it waited
        session.ledger.note(row, None)
    if session.published is not None:
        waiting = lease.waiting(session.published, session.stop)
        fetched = session.published.fetch(row, waiting)
        if not fetched and also is not None:
            fetched = session.published.fetch(also, waiting, own=False)
    here = [*session.artifacts.earlier(row), *(session.artifacts.checkpoints(also) if also else ())]
    return [*fetched, *(path for path in here if path not in fetched)]


def _recorded(session: Session, row: Row, trial: Trial, lease: Lease, report: Report) -> None:
    """Records the last epoch, which is first written to the study's store if there is one."""
    record, published = trial.curve[-1], session.published
    if published is None:
        report(record, None)
        return
    kept = getattr(trial, "kept", None)  # only of a program's trial
    artifact = published.checkpoint(row, record.epoch, kept, lease.waiting(published, session.stop))
    report(record, artifact)
    published.settle(row, artifact)


def _trained(session: Session, row: Row, trial: Trial, lease: Lease) -> Generator[Trial, None, Ending]:
    """Train to the end: only search rows are pruned."""

    def report(record: EpochRecord, artifact: Artifact | None) -> None:
        session.ledger.progress(row, record, curve=trial.curve, artifact=artifact)

    ending = yield from _follow(session, row, trial, lease, report, lambda record: False)
    return ending


def _follow(
    session: Session, row: Row, trial: Trial, lease: Lease, report: Report, verdict: Verdict
) -> Generator[Trial, None, Ending]:
    """Train epoch by epoch. Each epoch is first reported, which fails if the lease is lost, and then judged."""
    training = Training(session)
    try:
        if trial.curve and verdict(trial.curve[-1]):  # an earlier attempt was killed between report and verdict
            return Ending("pruned")
        with _left_cleanly(trial.epochs()) as epochs:
            while not trial.finished:
                yield trial
                with training.epoch():
                    record = next(epochs)
                lease.check()
                _recorded(session, row, trial, lease, report)
                lease.renewed()
                if verdict(record):
                    return Ending("pruned")
    except TrialError as error:
        if error.kind not in CONFIGURATION_FAILURES:
            raise
        return Ending("diverged", error.kind, clean_message(str(error)))
    return Ending("complete")


@contextmanager
def _left_cleanly(epochs: Generator[EpochRecord, None, None]) -> Iterator[Generator[EpochRecord, None, None]]:
    """Closes the generator at the end; throws Interrupted into it if an error, such as a lost lease, ends the work."""
    try:
        yield epochs
    except BaseException:
        with suppress(Interrupted, StopIteration):
            epochs.throw(Interrupted("the worker leaves the trial"))
        raise
    epochs.close()


def _finish(
    session: Session,
    row: Row,
    trial: Trial,
    ending: Ending,
    *,
    value: float | None = None,
    others: Sequence[MetricSeries] = (),
    forget: bool = True,
    trained_elsewhere: Sequence[EpochRecord] = (),
    attributes: Mapping[str, Any] | None = None,
    report_to: int | None = None,
    artifact: Artifact | None = None,
) -> None:
    """`trained_elsewhere`: epochs that another row trained; their time counts for that row.

    `others`: what was measured besides the curve; `attributes`, `report_to` and `artifact`: as in the ledger.
    """
    complete = ending.outcome == "complete"
    if value is None and trial.curve and ending.outcome != "diverged":
        value = trial.curve[-1].value
    session.ledger.finish(
        row,
        outcome=ending.outcome,
        value=value,
        curve=trial.curve,
        train_value=trial.train_value() if complete and row.stage not in ("audit", "test") else None,
        seconds=_seconds(trial, trained_elsewhere),
        failure=ending.failure,
        message=ending.message,
        metrics=[*(getattr(trial, "metrics", ()) or epoch_series(trial.curve)), *others],
        recovered=trial.recovered if complete or ending.outcome == "pruned" else None,
        attributes=attributes,
        report_to=report_to,
        artifact=artifact,
    )
    if forget:
        session.forget(row)


def _seconds(trial: Trial, trained_elsewhere: Sequence[EpochRecord] = ()) -> float:
    elsewhere = {(record.epoch, record.value, record.seconds) for record in trained_elsewhere}  # a loss may be NaN
    own = (each for each in trial.curve if (each.epoch, each.value, each.seconds) not in elsewhere)
    again = getattr(trial, "lost_s", 0.0)  # only of a trial that could not resume
    return again + sum(record.seconds for record in own)


# ---------------------------------------------------------------- Optuna's side


def _asked(session: Session, study: Study, row: Row) -> OptunaTrial:
    """The Optuna trial of a row: the attached one, an orphan that was asked for this row, or a new one."""
    number = row.trial
    if number is None and row.attempt > 1:
        number = find_orphan(session.ledger, row)
    if number is None:
        recipe = _first_values(session, study, row)
        asked = studies.ask(study, session.storage, row.id, fixed=recipe)
    else:
        asked = studies.resume_trial(study, number)
    if row.trial is None:
        session.ledger.attach(row, asked.number)
    return asked


def _first_values(session: Session, study: Study, row: Row) -> dict[str, Any]:
    """Values that are given to this trial: by the user, or from an earlier study."""
    if row.ordinal < len(session.spec.search.start):
        return start_recipe(session.spec, row.arm, row.ordinal)
    if row.ordinal >= len(session.spec.search.start) + MOST:
        return {}
    return recipe_of(session.spec, row.arm, row.ordinal, kept_start(study, session.spec))


def _suggested(session: Session, asked: OptunaTrial, row: Row) -> dict[str, Any]:
    """The parameters of a trial, as the database stores them once all are suggested."""
    suggested = suggest(asked, session.spec, row.arm)
    stored = studies.stored_params(session.storage, asked)
    return {name: stored[name] for name in suggested}
