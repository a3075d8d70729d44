"""What a crash leaves between the ledger and Optuna, found so that it can be mended. The ledger is always right.

A trial lives in both: it is asked for, attached to its row, and told to Optuna once its row is done. Whoever dies in
between leaves one of three things: an orphan (asked for, not attached), an unsettled row (done, not told) or a stray
(asked for by somebody who had lost the row). Workers mend these; `repair` mends these and what people do to a database.

Every mend is one statement that looks again whether its row is as it was seen, and still in nobody's hands.
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
from ralr_tune.store.database import make_engine
from ralr_tune.store.failures import OPEN_RETRY_S, retry_for, storage_errors
from ralr_tune.store.incidents import incident_insert
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.schema import EARLIER, migrate, version
from ralr_tune.store.studies import ROW_MARK, optuna_name, optuna_trials, running_trials
from ralr_tune.store.tables import Now

ArmBlock = tuple[str, int]
"""(arm, block): one Optuna study."""

_ledger = tables.ledger
_expired = and_(_ledger.c.state == "held", _ledger.c.lease_end < Now())
_failed = and_(_ledger.c.state == "done", _ledger.c.outcome == "failed")
_not_held = or_(_ledger.c.state == "free", _expired, _failed)


def find_orphan(ledger: Ledger, row: Row) -> int | None:
    """Number of the running Optuna trial that was asked for this row: what its owner attaches before asking anew."""
    running = _running(ledger, row.arm, row.block)
    return min((number for number, trial in running.items() if _row_id(trial) == row.id), default=None)


def unsettled(ledger: Ledger) -> list[Row]:
    """Search rows that are done while their Optuna trial still runs: their outcome is to be told.

    Failed rows are not among them: they may be opened again, and a trial that was told FAIL takes nothing more. The
    row of a worker that is just about to tell is; to be told the same twice harms no trial.
    """
    untold = and_(_ledger.c.state == "done", _ledger.c.outcome != "failed")
    found: list[int] = []
    for (arm, block), running in _running_by_study(ledger).items():
        here = and_(_search(ledger), _ledger.c.arm == arm, _ledger.c.block == block)
        query = select(_ledger.c.id).where(here, untold, _ledger.c.trial.in_(running))
        found += [row["id"] for row in ledger.storage.rows(query)]
    return [ledger.row(row_id) for row_id in sorted(found)]


def strays(ledger: Ledger) -> list[tuple[str, int]]:
    """Running trials, as (Optuna study, number), that no row will ever adopt: their row has another, or is not there.

    Telling them FAIL is safe at any time. Trials without our mark are somebody's own, and theirs to end.
    """
    asked = [
        (place, number, row_id)
        for place, running in _running_by_study(ledger).items()
        for number, trial in running.items()
        if (row_id := _row_id(trial)) is not None
    ]
    if not asked:
        return []
    # After the trials: whatever row one of them was asked for was there then.
    query = select(_ledger.c.id, _ledger.c.trial, _search(ledger).label("ours"))
    query = query.where(_ledger.c.id.in_({row_id for _, _, row_id in asked}))
    rows = {row["id"]: row for row in ledger.storage.rows(query)}

    def is_stray(number: int, row_id: int) -> bool:
        row = rows.get(row_id)
        return row is None or (row["ours"] and row["trial"] not in (None, number))

    return [(optuna_name(ledger.study, *place), number) for place, number, row_id in asked if is_stray(number, row_id)]


# ---------------------------------------------------------------- a whole study, looked at for `repair`


@dataclass(frozen=True)
class Inspection:
    """Ledger and Optuna, read one after the other while others may write."""

    rows: Sequence[Row]
    """All stages, without curves; read after the trials."""
    unchanged: frozenset[int]
    """Ids of rows that were the same before the trials were read."""
    expired: Mapping[int, float]
    """Held rows whose lease ran out: seconds since then, by id."""
    trials: Mapping[ArmBlock, Mapping[int, FrozenTrial]]
    """Optuna's trials by their number."""

    def alive(self, row: Row) -> bool:
        """Whether a worker holds the row now."""
        return row.state == "held" and row.id not in self.expired

    def trial(self, row: Row) -> FrozenTrial | None:
        """The Optuna trial that a search row names."""
        return None if row.trial is None else self.trials[row.arm, row.block].get(row.trial)

    def orphans(self) -> list[tuple[Row, list[int]]]:
        """(row in nobody's hands that names no trial, numbers of the running ones that were asked for it).

        The first is the one to attach, as `find_orphan` has it; the others are strays once it is.
        """
        asked: dict[int | None, list[int]] = defaultdict(list)
        for numbered in self.trials.values():
            for number, trial in sorted(numbered.items()):
                if trial.state == TrialState.RUNNING:
                    asked[_row_id(trial)].append(number)
        waiting = [row for row in self._search() if row.trial is None and not self.alive(row)]
        return [(row, asked[row.id]) for row in waiting if row.id in asked]

    def stuck(self) -> list[tuple[Row, FrozenTrial | None]]:
        """(row that is not done, the trial that it names) where Optuna takes nothing more for it, or lacks it (None).

        Failed rows count as not done: they may be opened again.
        """
        open_rows = [row for row in self._named() if row.state != "done" or row.outcome == "failed"]
        found = [(row, self.trial(row)) for row in open_rows]
        return [(row, trial) for row, trial in found if trial is None or trial.state.is_finished()]

    def contradicted(self, diverged: Callable[[Row], float]) -> list[tuple[Row, FrozenTrial | None]]:
        """(done row, the trial that it names) where Optuna lacks it (None) or has it otherwise.

        `diverged`: the value that a diverged row is reported with.
        """
        done = [row for row in self._named() if row.state == "done" and row.outcome != "failed"]
        found = [(row, self.trial(row)) for row in done]
        return [(row, trial) for row, trial in found if trial is None or not _agrees(row, trial, diverged)]

    def foreign(self) -> list[tuple[ArmBlock, FrozenTrial]]:
        """Trials that run or wait without our mark: somebody's own."""
        open_states = (TrialState.RUNNING, TrialState.WAITING)
        return [
            (place, trial)
            for place, numbered in self.trials.items()
            for trial in numbered.values()
            if trial.state in open_states and _row_id(trial) is None
        ]

    def _search(self) -> list[Row]:
        return [row for row in self.rows if row.stage == "search" and row.id in self.unchanged]

    def _named(self) -> list[Row]:
        return [row for row in self._search() if row.trial is not None and (row.arm, row.block) in self.trials]


def inspect(ledger: Ledger, places: Iterable[ArmBlock]) -> Inspection:
    """The study as it is now; `places`: its arms and blocks."""
    before = set(map(_seen, ledger.rows(curves=False)))
    trials = {place: optuna_trials(ledger.storage, optuna_name(ledger.study, *place)) for place in places}
    rows = ledger.rows(curves=False)
    since = (Now() - _ledger.c.lease_end).label("since")
    query = select(_ledger.c.id, since).where(_ledger.c.study == ledger.study, _expired)
    expired = {found["id"]: float(found["since"]) for found in ledger.storage.rows(query)}
    return Inspection(rows, frozenset(row.id for row in rows if _seen(row) in before), expired, trials)


def free(ledger: Ledger, row: Row) -> bool:
    """Gives back a row whose owner's lease ran out; whether it did. An owner that comes back loses it."""
    note = incident_insert(ledger.study, row, "lost", f"{row.owner} is gone, and its lease ran out")
    return _change(ledger, row, _expired, note, state="free", lease_end=None)


def attach(ledger: Ledger, row: Row, trial: int) -> bool:
    """Notes the trial that was asked for a row in nobody's hands; whether it did."""
    return _change(ledger, row, and_(_not_held, _ledger.c.trial.is_(None)), trial=trial)


def detach(ledger: Ledger, row: Row) -> bool:
    """Lets a row in nobody's hands ask Optuna anew and begin from the start; whether it did."""
    there = and_(_not_held, _ledger.c.trial == row.trial)
    return _change(ledger, row, there, trial=None, epoch=0, value=None)


# ---------------------------------------------------------------- tables of an earlier version


def outdated(url: str) -> str | None:
    """The version of the tables behind a storage URL, if it is an earlier one than this program's."""
    address = parse_address(url)
    if address.file is not None and not address.file.exists():  # SQLite would make an empty one
        return None
    engine = make_engine(address)
    try:
        with retry_for(OPEN_RETRY_S), storage_errors(address):
            found = version(engine)
    finally:
        engine.dispose()
    return found if found in EARLIER else None


def bring_up_to_date(url: str) -> None:
    """Migrates tables of an earlier version. StorageError while workers work with them."""
    address = parse_address(url)
    engine = make_engine(address)
    try:
        with storage_errors(address):
            migrate(engine, address)
    finally:
        engine.dispose()


def _change(ledger: Ledger, row: Row, still: ColumnElement[bool], *also: Insert, **values: object) -> bool:
    """Changes a row that is as it was seen and `still` so; `also` with it, or not at all. Whether it did."""
    seen = and_(_ledger.c.id == row.id, _ledger.c.attempt == row.attempt)
    write = update(_ledger).where(seen, still).values(**values)

    def together(connection: Connection) -> int:
        met = connection.execute(write).rowcount
        for statement in also if met else ():
            connection.execute(statement)
        return met

    return bool(ledger.storage.transact(together))


def _seen(row: Row) -> tuple[object, ...]:
    return row.id, row.state, row.attempt, row.trial, row.outcome


def _agrees(row: Row, trial: FrozenTrial, diverged: Callable[[Row], float]) -> bool:
    """A trial that still runs contradicts nothing: it was not told yet (`unsettled`)."""
    if trial.state == TrialState.RUNNING:
        return True
    if row.outcome == "pruned":
        return trial.state == TrialState.PRUNED
    value = diverged(row) if row.outcome == "diverged" else row.value
    if trial.state != TrialState.COMPLETE or trial.value is None or value is None:
        return False
    return isclose(trial.value, value, rel_tol=1e-12)


def _search(ledger: Ledger) -> ColumnElement[bool]:
    return and_(_ledger.c.study == ledger.study, _ledger.c.stage == "search")


def _running_by_study(ledger: Ledger) -> dict[ArmBlock, dict[int, FrozenTrial]]:
    """A few, even in a large study: what is asked of its rows is asked by these."""
    places = ledger.storage.rows(select(_ledger.c.arm, _ledger.c.block).where(_search(ledger)).distinct())
    running = {place: _running(ledger, *place) for place in sorted((row["arm"], row["block"]) for row in places)}
    return {place: trials for place, trials in running.items() if trials}


def _running(ledger: Ledger, arm: str, block: int) -> dict[int, FrozenTrial]:
    return running_trials(ledger.storage, optuna_name(ledger.study, arm, block))


def _row_id(trial: FrozenTrial) -> int | None:
    mark = trial.user_attrs.get(ROW_MARK)
    return mark if isinstance(mark, int) else None
