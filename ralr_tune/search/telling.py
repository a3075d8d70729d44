"""Optuna's side of a row: its study, and `tell` with the trial's outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import TrialState

from ralr_tune.metric import Metric
from ralr_tune.records import Row
from ralr_tune.search.samplers import make_pruner, make_sampler
from ralr_tune.search.session import Session
from ralr_tune.store import studies
from ralr_tune.store.recovery import strays, unsettled


def optuna_study(session: Session, row: Row) -> Study:
    """The Optuna study of a row, its sampler seeded for this row alone."""
    sampler = make_sampler(session.spec, row.arm, row.block, row.ordinal)
    name = session.ledger.optuna_name(row.arm, row.block)
    return studies.optuna_study(session.storage, name, sampler=sampler, pruner=make_pruner(session.spec))


def tell(session: Session, row: Row, study: Study | None = None) -> None:
    """Report the outcome of a done search row with Optuna's `tell`; any process may do it, and repeat it.

    A diverged configuration is reported as COMPLETE at the metric's worst value, since samplers ignore FAIL and rank
    PRUNED by the length of its curve.
    """
    study = study or optuna_study(session, row)
    assert row.trial is not None
    if row.outcome == "pruned":
        study.tell(row.trial, state=TrialState.PRUNED, skip_if_finished=True)
        return
    value = row.value
    if row.outcome == "diverged":
        studies.mark_trial(study, session.storage, row.trial, "ralr_tune:diverged", row.failure)
        metric = session.spec.metric
        rows = session.ledger.rows("search", curves=False) if metric.worst is None else ()
        value = value_of_diverged(metric, rows, row)
    study.tell(row.trial, value, skip_if_finished=True)


def value_of_diverged(metric: Metric, rows: Sequence[Row], row: Row) -> float:
    """The value that Optuna gets for a diverged search row; `rows`: at least those of its arm and block.

    For an unbounded metric: the worst value of the rows of this arm and block that ended before this one (our choice).
    Rows that end later do not count, so the value does not depend on which worker reports it, or when.
    """
    place = (row.arm, row.block, "search")
    before = [
        each for each in rows if (each.arm, each.block, each.stage) == place and _end_order(each) < _end_order(row)
    ]
    ended = [each for each in before if each.outcome in ("complete", "pruned")]
    return metric.of_diverged(each.value for each in ended if each.value is not None)


def _end_order(row: Row) -> tuple[float, int]:
    """Sort key: the order in which rows ended; rows that have not ended come last."""
    return (math.inf if row.finished is None else row.finished), row.id


def settle(session: Session) -> None:
    """Fix what crashes left in Optuna: `tell` the outcomes of done rows, end trials that no row will adopt."""
    for row in unsettled(session.ledger):
        tell(session, row)
    for name, number in strays(session.ledger):
        study = studies.optuna_study(session.storage, name)
        study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
