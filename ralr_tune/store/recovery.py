"""Finds and fixes inconsistencies that a crash leaves between the ledger and Optuna. The ledger is always right.

A trial is in both: the worker asks Optuna for it, attaches it to its row, and reports it to Optuna (`tell`) once its
row is done. A worker that dies in between leaves an orphan (asked for, not attached), an unsettled row (done, not
reported) or a stray (asked for by a worker that had lost the row). Workers fix these; `repair` fixes manual edits, too.

Every fix is one statement that checks again that its row is unchanged and that no worker holds it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Connection, Insert, and_, or_, select, update

from ralr_tune.records import Row
from ralr_tune.store import tables
from ralr_tune.store.address import parse_address
from ralr_tune.store.connections import make_engine
from ralr_tune.store.failures import OPEN_RETRY_S, retry_for, storage_errors
from ralr_tune.store.incidents import incident_insert
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.schema import EARLIER, migrate, version
from ralr_tune.store.studies import ROW_MARK, optuna_trials, running_trials
from ralr_tune.store.tables import Now

ArmBlock = tuple[str, int]
"""(arm, block): one Optuna study."""

_ledger = tables.ledger
_expired = and_(_ledger.c.state == "held", _ledger.c.lease_end < Now())
_failed = and_(_ledger.c.state == "done", _ledger.c.outcome == "failed")
_not_held = or_(_ledger.c.state == "free", _expired, _failed)


def find_orphan(ledger: Ledger, row: Row) -> int | None:
    """Number of the running Optuna trial that was asked for this row: its owner attaches it instead of asking again."""
    running = _running(ledger, row.arm, row.block)
    return min((number for number, trial in running.items() if _row_id(trial) == row.id), default=None)


def unsettled(ledger: Ledger) -> list[Row]:
    """Search rows that are done while their Optuna trial still runs: their outcome must be reported with `tell`.

    Excludes failed rows: they may be reopened, and Optuna accepts no reports for a failed trial. Includes rows whose
    worker is about to call `tell`; reporting the same outcome twice does no harm.
    """
    untold = and_(_ledger.c.state == "done", _ledger.c.outcome != "failed")
    found: list[int] = []
    for (arm, block), running in _running_by_study(ledger).items():
        here = and_(_search(ledger), _ledger.c.arm == arm, _ledger.c.block == block)
        query = select(_ledger.c.id).where(here, untold, _ledger.c.trial.in_(running))
        found += [row["id"] for row in ledger.storage.rows(query)]
    return [ledger.row(row_id) for row_id in sorted(found)]


def strays(ledger: Ledger) -> list[tuple[str, int]]:
    """Running trials, as (Optuna study, number), that no row will ever adopt: their row has another trial or is gone.

    Ending them as FAIL is always safe. Trials without ROW_MARK come from another program and are left alone.
    """
    asked = [
        (arm_block, number, row_id)
        for arm_block, running in _running_by_study(ledger).items()
        for number, trial in running.items()
        if (row_id := _row_id(trial)) is not None
    ]
    if not asked:
        return []
    # Read after the trials: the row that a trial was asked for existed by then.
    query = select(_ledger.c.id, _ledger.c.trial, _search(ledger).label("is_search"))
    query = query.where(_ledger.c.id.in_({row_id for _, _, row_id in asked}))
    rows = {row["id"]: row for row in ledger.storage.rows(query)}

    def is_stray(number: int, row_id: int) -> bool:
        row = rows.get(row_id)
        return row is None or (row["is_search"] and row["trial"] not in (None, number))

    return [(ledger.optuna_name(*arm_block), number) for arm_block, number, row_id in asked if is_stray(number, row_id)]


# ---------------------------------------------------------------- a whole study, inspected for `repair`


@dataclass(frozen=True)
class Inspection:
    """Ledger and Optuna, read one after the other while other processes may write."""

    rows: Sequence[Row]
    """All stages, without curves; read after the trials."""
    unchanged: frozenset[int]
    """Ids of rows that did not change while the trials were read."""
    expired: Mapping[int, float]
    """Held rows whose lease expired: seconds since then, by id."""
    trials: Mapping[ArmBlock, Mapping[int, FrozenTrial]]
    """Optuna's trials by number."""

    def alive(self, row: Row) -> bool:
        """Whether a worker holds the row under a valid lease."""
        return row.state == "held" and row.id not in self.expired

    def trial(self, row: Row) -> FrozenTrial | None:
        """The Optuna trial that is attached to a search row."""
        return None if row.trial is None else self.trials[row.arm, row.block].get(row.trial)

    def orphans(self) -> list[tuple[Row, list[int]]]:
        """(row that no worker holds and that has no trial, numbers of the running trials that were asked for it).

        The first number is the one to attach, as in `find_orphan`; the others then become strays.
        """
        asked: dict[int | None, list[int]] = defaultdict(list)
        for numbered in self.trials.values():
            for number, trial in sorted(numbered.items()):
                if trial.state == TrialState.RUNNING:
                    asked[_row_id(trial)].append(number)
        waiting = [row for row in self._search() if row.trial is None and not self.alive(row)]
        return [(row, asked[row.id]) for row in waiting if row.id in asked]

    def stuck(self) -> list[tuple[Row, FrozenTrial | None]]:
        """(row that is not done, its trial) for trials that Optuna has ended or that do not exist (None).

        Failed rows count as not done: they may be reopened.
        """
        open_rows = [row for row in self._named() if row.state != "done" or row.outcome == "failed"]
        found = [(row, self.trial(row)) for row in open_rows]
        return [(row, trial) for row, trial in found if trial is None or trial.state.is_finished()]

    def contradicted(self, diverged: Callable[[Row], float]) -> list[tuple[Row, FrozenTrial | None]]:
        """(done row, its trial) for trials that contradict the row or do not exist (None).

        `diverged`: returns the value that a diverged row is reported with.
        """
        done = [row for row in self._named() if row.state == "done" and row.outcome != "failed"]
        found = [(row, self.trial(row)) for row in done]
        return [(row, trial) for row, trial in found if trial is None or not _agrees(row, trial, diverged)]

    def foreign(self) -> list[tuple[ArmBlock, FrozenTrial]]:
        """Trials that run or wait without ROW_MARK: another program created them."""
        open_states = (TrialState.RUNNING, TrialState.WAITING)
        return [
            (arm_block, trial)
            for arm_block, numbered in self.trials.items()
            for trial in numbered.values()
            if trial.state in open_states and _row_id(trial) is None
        ]

    def _search(self) -> list[Row]:
        return [row for row in self.rows if row.stage == "search" and row.id in self.unchanged]

    def _named(self) -> list[Row]:
        return [row for row in self._search() if row.trial is not None and (row.arm, row.block) in self.trials]


def inspect(ledger: Ledger, arm_blocks: Iterable[ArmBlock]) -> Inspection:
    """The study as it is now; `arm_blocks`: its arms and blocks."""
    before = set(map(_state_of, ledger.rows(curves=False)))
    trials = {each: optuna_trials(ledger.storage, ledger.optuna_name(*each)) for each in arm_blocks}
    rows = ledger.rows(curves=False)
    since = (Now() - _ledger.c.lease_end).label("since")
    query = select(_ledger.c.id, since).where(_ledger.c.study == ledger.key, _expired)
    expired = {found["id"]: float(found["since"]) for found in ledger.storage.rows(query)}
    return Inspection(rows, frozenset(row.id for row in rows if _state_of(row) in before), expired, trials)


def free(ledger: Ledger, row: Row) -> bool:
    """Frees a row whose owner's lease expired; returns whether it did. An owner that resumes loses the row."""
    note = incident_insert(ledger.key, row, "lost", f"{row.owner} is gone, and its lease ran out")
    return _change(ledger, row, _expired, note, state="free", lease_end=None)


def attach(ledger: Ledger, row: Row, trial: int) -> bool:
    """Attaches the trial that was asked for a row, if no worker holds the row; returns whether it did."""
    return _change(ledger, row, and_(_not_held, _ledger.c.trial.is_(None)), trial=trial)


def detach(ledger: Ledger, row: Row) -> bool:
    """Resets a row that no worker holds, so that it gets a new trial and starts over; returns whether it did."""
    attached = and_(_not_held, _ledger.c.trial == row.trial)
    return _change(ledger, row, attached, trial=None, epoch=0, value=None)


# ---------------------------------------------------------------- tables of an earlier version


def outdated(url: str) -> str | None:
    """The version of the tables at a storage URL if it is earlier than this program's; otherwise None."""
    address = parse_address(url)
    if address.file is not None and not address.file.exists():  # SQLite would create an empty file
        return None
    engine = make_engine(address)
    try:
        with retry_for(OPEN_RETRY_S), storage_errors(address):
            found = version(engine)
    finally:
        engine.dispose()
    return found if found in EARLIER else None


def bring_up_to_date(url: str) -> None:
    """Migrates tables of an earlier version. StorageError while workers use them."""
    address = parse_address(url)
    engine = make_engine(address)
    try:
        with storage_errors(address):
            migrate(engine, address)
    finally:
        engine.dispose()


def _change(ledger: Ledger, row: Row, condition: ColumnElement[bool], *also: Insert, **values: object) -> bool:
    """Changes a row if its attempt is unchanged and `condition` holds, and runs `also` with it; returns whether."""
    unchanged = and_(_ledger.c.id == row.id, _ledger.c.attempt == row.attempt)
    write = update(_ledger).where(unchanged, condition).values(**values)

    def together(connection: Connection) -> int:
        matched = connection.execute(write).rowcount
        for statement in also if matched else ():
            connection.execute(statement)
        return matched

    return bool(ledger.storage.transact(together))


def _state_of(row: Row) -> tuple[object, ...]:
    return row.id, row.state, row.attempt, row.trial, row.outcome


def _agrees(row: Row, trial: FrozenTrial, diverged: Callable[[Row], float]) -> bool:
    """Whether a trial matches its done row. A running trial does: its outcome is not reported yet (`unsettled`)."""
    if trial.state == TrialState.RUNNING:
        return True
    if row.outcome == "pruned":
        return trial.state == TrialState.PRUNED
    value = diverged(row) if row.outcome == "diverged" else row.value
    if trial.state != TrialState.COMPLETE or trial.value is None or value is None:
        return False
    return isclose(trial.value, value, rel_tol=1e-12)


def _search(ledger: Ledger) -> ColumnElement[bool]:
    return and_(_ledger.c.study == ledger.key, _ledger.c.stage == "search")


def _running_by_study(ledger: Ledger) -> dict[ArmBlock, dict[int, FrozenTrial]]:
    """The running trials of each Optuna study: few even in a large study, so queries on rows start from them."""
    arm_blocks = ledger.storage.rows(select(_ledger.c.arm, _ledger.c.block).where(_search(ledger)).distinct())
    running = {each: _running(ledger, *each) for each in sorted((row["arm"], row["block"]) for row in arm_blocks)}
    return {each: trials for each, trials in running.items() if trials}


def _running(ledger: Ledger, arm: str, block: int) -> dict[int, FrozenTrial]:
    return running_trials(ledger.storage, ledger.optuna_name(arm, block))


def _row_id(trial: FrozenTrial) -> int | None:
    mark = trial.user_attrs.get(ROW_MARK)
    return mark if isinstance(mark, int) else None
