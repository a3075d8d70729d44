"""What a crash leaves between the ledger and Optuna, found so that it can be mended. The ledger is always right.

A trial lives in both: it is asked for, attached to its row, and told to Optuna once its row is done. Whoever dies in
between leaves one of three things: an orphan (asked for, not attached), an unsettled row (done, not told) or a stray
(asked for by somebody who had lost the row).
"""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from ralr_tune.records import Row
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.studies import ROW_MARK, optuna_name, optuna_trials


def find_orphan(ledger: Ledger, row: Row) -> int | None:
    """Number of the running Optuna trial that was asked for this row: what its owner attaches before asking anew."""
    running = _running(ledger, row.arm, row.block)
    return min((number for number, trial in running.items() if _row_id(trial) == row.id), default=None)


def unsettled(ledger: Ledger) -> list[Row]:
    """Search rows that are done while their Optuna trial still runs: their outcome is to be told.

    Failed rows are not among them: they may be opened again, and a trial that was told FAIL takes nothing more. The
    row of a worker that is just about to tell is; to be told the same twice harms no trial.
    """
    rows = ledger.rows("search", curves=False)
    done = [row for row in rows if row.state == "done" and row.outcome != "failed" and row.trial is not None]
    running = {place: _running(ledger, *place) for place in {(row.arm, row.block) for row in done}}
    return [ledger.row(row.id) for row in done if row.trial in running[row.arm, row.block]]


def strays(ledger: Ledger) -> list[tuple[str, int]]:
    """Running trials, as (Optuna study, number), that no row will ever adopt, since their row has another.

    Telling them FAIL is safe at any time. Trials without our mark are somebody's own, and theirs to end.
    """
    rows = ledger.rows("search", curves=False)
    attached = {row.id: row.trial for row in rows if row.trial is not None}
    return [
        (optuna_name(ledger.study, *place), number)
        for place in sorted({(row.arm, row.block) for row in rows})
        for number, trial in _running(ledger, *place).items()
        if attached.get(_row_id(trial) or 0, number) != number
    ]


def _running(ledger: Ledger, arm: str, block: int) -> dict[int, FrozenTrial]:
    return optuna_trials(ledger.storage, optuna_name(ledger.study, arm, block), TrialState.RUNNING)


def _row_id(trial: FrozenTrial) -> int | None:
    mark = trial.user_attrs.get(ROW_MARK)
    return mark if isinstance(mark, int) else None
