"""One row of the ledger, from claim to done: ask, train, report, prune, write down, tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import Trial as OptunaTrial

from ralr_tune.errors import DataError, DiskError, FailureKind, Interrupted, LeaseLost, StorageError, TrialError
from ralr_tune.records import EpochRecord, Outcome, Row
from ralr_tune.search import audits
from ralr_tune.search.artifacts import confirm_configuration, remove
from ralr_tune.search.failing import (
    CONFIGURATION_FAILURES,
    clean_message,
    end_if_lost_repeatedly,
    kind_of,
    record_diverged,
    retry_or_end,
)
from ralr_tune.search.pruning import Judge
from ralr_tune.search.samplers import start_recipe
from ralr_tune.search.session import Lease, Session
from ralr_tune.search.space import suggest
from ralr_tune.search.telling import optuna_study, tell
from ralr_tune.store import studies
from ralr_tune.store.recovery import find_orphan
from ralr_tune.studyfile import Configuration
from ralr_tune.tasks.trial import Trial

log = logging.getLogger(__name__)

Report = Callable[[EpochRecord], None]
"""Writes an epoch down; LeaseLost where the row is another's."""
Verdict = Callable[[EpochRecord], bool]
"""Whether to end the trial after this epoch."""


@dataclass(frozen=True)
class Ending:
    """How a trial ended."""

    outcome: Outcome
    failure: FailureKind | None = None
    message: str | None = None


Work = Generator[Trial, None, None]
"""Work on a row, which waits before every epoch: whoever goes on with it may have trained the trial's epoch by then,
together with others (see training.fusion); else the trial does so by itself."""


def work_on(session: Session, row: Row) -> None:
    """Bring one claimed row to its end, whatever that is; a lost lease ends quietly.

    Raises Interrupted (the row is free again) when asked to stop, TrialError when the failure ends the study.
    """
    for _ in epochs_of(session, row):
        pass


def epochs_of(session: Session, row: Row) -> Work:
    """`work_on`, epoch by epoch. To throw Interrupted into it frees the row."""
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
    """Whoever finishes a row, or its audit, removes the files of all attempts; if that is over, ours came too late."""
    rows = session.ledger.rows(curves=False)
    over = {each.id for each in rows if each.state == "done"} - {each.id for each in audits.waiting(session.spec, rows)}
    if row.id in over:
        session.artifacts.forget(row)


def _guarded(session: Session, row: Row, lease: Lease, work: Callable[[Session, Row, Lease], Work]) -> Work:
    """Whatever the work raises becomes what the ledger says of the row."""
    try:
        yield from work(session, row, lease)
    except (Interrupted, DiskError):  # nothing is wrong with the trial
        session.ledger.release(row)
        raise
    except LeaseLost:
        raise
    except StorageError:
        session.ledger.renew_lease(row)  # whoever lost the row finds its trial finished by another: LeaseLost says so
        raise
    except Exception as error:
        kind = kind_of(error)
        if (
            kind in CONFIGURATION_FAILURES
        ):  # before the first epoch or after the last one; `_follow` sees to those between
            record_diverged(session, row, kind, str(error))
        else:
            retry_or_end(session, row, kind, error)


# ---------------------------------------------------------------- the kinds of work


def _search(session: Session, row: Row, lease: Lease) -> Work:
    study = optuna_study(session, row)
    asked = _asked(session, study, row)
    configuration = session.spec.configuration(row.arm, _suggested(session, asked, row))
    trial = _start(session, row, configuration)
    judge = Judge(study, session.spec.search.prune_on)

    def report(record: EpochRecord) -> None:
        session.ledger.progress(row, record, report_to=asked._trial_id)
        studies.cache_report(asked, record)

    def prune(record: EpochRecord) -> bool:
        return record.epoch < configuration.training.epochs and judge.should_prune(asked)

    for record in trial.curve:  # of an earlier attempt, which may not have come to report its last epoch
        report(record)
    ending = yield from _follow(session, trial, lease, report, prune)
    _finish(session, row, trial, ending, forget=not (ending.outcome == "pruned" and _is_audited(session, row)))
    tell(session, session.ledger.row(row.id), study)


def _is_audited(session: Session, row: Row) -> bool:
    trials = max(count.budget for (_, stage), count in session.ledger.counts().items() if stage == "search")
    return audits.is_sampled(session.spec, row, trials)


def _audit(session: Session, row: Row, lease: Lease) -> Work:
    """Train a pruned trial on to its end, from where it was pruned if that file is here; Optuna hears nothing of it."""
    pruned = session.ledger.search_row(row)
    configuration = session.spec.configuration(row.arm, row.params)
    trial = _start(session, row, configuration, also=session.artifacts.checkpoints(pruned))
    ending = yield from _trained(session, row, trial, lease)
    _finish(session, row, trial, ending, trained_elsewhere=pruned.curve)
    session.artifacts.forget(pruned)


def _confirm(session: Session, row: Row, lease: Lease) -> Work:
    trial = _start(session, row, confirm_configuration(session.spec, row))
    ending = yield from _trained(session, row, trial, lease)
    keep = row.stage == "judge" and ending.outcome == "complete"
    if keep:
        trial.save_weights(session.artifacts.draft(row))
    _finish(session, row, trial, ending, forget=not keep)
    if keep:  # only now is it sure whose weights are those of the row
        with suppress(OSError):  # without them the test trains again
            session.artifacts.draft(row).replace(session.artifacts.weights(row))
        session.artifacts.forget(row)


def _test(session: Session, row: Row, lease: Lease) -> Work:
    """Read the test split with the weights of the judged run; trains again (same seed) where they are not here."""
    trial = _start(session, row, confirm_configuration(session.spec, row))
    ending = Ending("complete")
    try:
        trial.load_weights(session.artifacts.weights(row))
    except DataError:  # judged on another machine, or the folder is gone
        ending = yield from _trained(session, row, trial, lease)
    value = trial.evaluate("test") if ending.outcome == "complete" else None
    _finish(session, row, trial, ending, value=value)
    remove(session.artifacts.weights(row))


# ---------------------------------------------------------------- what they share


def _start(session: Session, row: Row, configuration: Configuration, also: Sequence[Path] = ()) -> Trial:
    """`also`: checkpoints of another row that trained the same."""
    own, earlier = session.artifacts.checkpoint(row), [*session.artifacts.earlier(row), *also]
    task = session.tasks.of(configuration.task)
    return session.spec.kind.trial(task, configuration, seed=row.seed, checkpoint=own, earlier=earlier)


def _trained(session: Session, row: Row, trial: Trial, lease: Lease) -> Generator[Trial, None, Ending]:
    """Train to the end: nothing is pruned outside of the search."""
    ending = yield from _follow(
        session, trial, lease, lambda record: session.ledger.progress(row, record), lambda record: False
    )
    return ending


def _follow(
    session: Session, trial: Trial, lease: Lease, report: Report, verdict: Verdict
) -> Generator[Trial, None, Ending]:
    """Train epoch by epoch; each is reported, which the ledger fences, and only then judged."""
    try:
        if trial.curve and verdict(trial.curve[-1]):  # it was killed between a report and its verdict
            return Ending("pruned")
        with closing(trial.epochs()) as epochs:
            while not trial.finished:
                yield trial
                record = _next(session, epochs)
                lease.check()
                report(record)
                if verdict(record):
                    return Ending("pruned")
    except TrialError as error:
        if error.kind not in CONFIGURATION_FAILURES:
            raise
        return Ending("diverged", error.kind, clean_message(str(error)))
    return Ending("complete")


def _next(session: Session, epochs: Iterator[EpochRecord]) -> EpochRecord:
    with session.stop.interruptible():
        return next(epochs)


def _finish(
    session: Session,
    row: Row,
    trial: Trial,
    ending: Ending,
    *,
    value: float | None = None,
    forget: bool = True,
    trained_elsewhere: Sequence[EpochRecord] = (),
) -> None:
    """`trained_elsewhere`: epochs that another row trained, and whose time is that row's."""
    complete = ending.outcome == "complete"
    if value is None and trial.curve and ending.outcome != "diverged":
        value = trial.curve[-1].value
    session.ledger.finish(
        row,
        outcome=ending.outcome,
        value=value,
        curve=trial.curve,
        train_value=trial.train_value() if complete and row.stage not in ("audit", "test") else None,
        seconds=sum(record.seconds for record in trial.curve if record not in trained_elsewhere),
        failure=ending.failure,
        message=ending.message,
        recovered=trial.recovered if complete or ending.outcome == "pruned" else None,
    )
    if forget:
        session.artifacts.forget(row)


# ---------------------------------------------------------------- Optuna's side


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


def _suggested(session: Session, asked: OptunaTrial, row: Row) -> dict[str, Any]:
    """The parameters of a trial, as the database has them once all are suggested."""
    space = session.spec.space(row.arm)
    suggest(asked, space)
    stored = studies.stored_params(session.storage, asked)
    return {name: stored[name] for name in space}
