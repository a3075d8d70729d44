"""`repair`: find and fix what is stuck in a study. Safe while workers run, and safe to repeat.

`repair` first collects all findings, then fixes them one by one. Search and fix need not be one transaction: a fix
changes nothing if a worker has changed the row since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from optuna import get_all_study_names
from optuna.trial import FrozenTrial, TrialState

from ralr_tune.commands.gc import counted, leftovers
from ralr_tune.commands.locate import StudyLocation, opened
from ralr_tune.commands.status import describe
from ralr_tune.errors import UsageError
from ralr_tune.objects.opening import reached
from ralr_tune.objects.stores import StoreError
from ralr_tune.records import Row
from ralr_tune.report.words import duration, size
from ralr_tune.search.published import Published
from ralr_tune.search.session import Session
from ralr_tune.search.stages import plan_search
from ralr_tune.search.tasks import Tasks
from ralr_tune.search.telling import tell, value_of_diverged
from ralr_tune.store import artifacts, recovery, studies
from ralr_tune.store.address import parse_address
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.schema import HEAD
from ralr_tune.studyfile import StudySpec, parse_study


@dataclass(frozen=True)
class Finding:
    """One problem of a study."""

    what: str
    where: str
    fix: str
    """What the fix does, as a participle; or, if `act` is None, what the user can do."""
    act: Callable[[], object] | None = field(default=None, repr=False, compare=False)
    """Applies the fix; safe while workers run, and safe to repeat."""


@dataclass(frozen=True)
class Repair:
    """The findings of a study, fixed unless `dry_run`."""

    study: str
    storage: str
    """The storage URL, with its password masked."""
    dry_run: bool
    findings: list[Finding]

    def as_text(self) -> str:
        return "\n".join(map(self._line, self.findings)) or "nothing to fix"

    def as_json(self) -> dict[str, Any]:
        findings = [
            {"what": each.what, "where": each.where, "mend": each.fix, "mended": bool(each.act and not self.dry_run)}
            for each in self.findings
        ]
        return {"study": self.study, "storage": self.storage, "dry_run": self.dry_run, "findings": findings}

    def _line(self, found: Finding) -> str:
        would = "would be " if self.dry_run and found.act else ""
        return f"{found.where}: {found.what} -> {would}{found.fix}"


def repair_study(where: StudyLocation, *, dry_run: bool = False) -> Repair:
    """Find what is stuck in a study and, unless `dry_run`, fix it. Loads neither data nor network.

    Raises StorageError if the database cannot be reached, lacks the study, or needs a migration while workers run.
    """
    studies.quiet_optuna()
    findings = _outdated_tables(where.storage_url, dry_run)
    _apply(findings, dry_run)
    if not (findings and dry_run):
        with opened(where) as storage:
            found = list(_Study(storage, where).findings())
            _apply(found, dry_run)
            findings += found
    return Repair(where.name, str(parse_address(where.storage_url)), dry_run, findings)


def _apply(findings: list[Finding], dry_run: bool) -> None:
    for found in findings:
        if found.act and not dry_run:
            found.act()


def _outdated_tables(url: str, dry_run: bool) -> list[Finding]:
    version = recovery.outdated(url)
    if version is None:
        return []
    what = f"its tables have version {version}, this program needs version {HEAD}"
    advice = " (copy the database first); other findings show only after that" if dry_run else ""
    migrate = partial(recovery.bring_up_to_date, url)
    return [Finding(what, str(parse_address(url)), f"migrated{advice}", migrate)]


class _Study:
    """One stored study: its ledger compared with its Optuna studies."""

    def __init__(self, storage: Storage, where: StudyLocation) -> None:
        text = studies.stored(storage, where.name).text
        self.storage, self.out, self.where = storage, where.out, where
        self.spec = parse_study(text, source=f"{where.name} (as stored)")
        self.ledger = Ledger(storage, self.spec.name, self.spec.storage.lease_s)
        blocks = range(1, self.spec.search.blocks + 1)
        self.inspection = recovery.inspect(self.ledger, [(arm, block) for arm in self.spec.arms for block in blocks])

    def findings(self) -> Iterator[Finding]:
        """All findings, in the order in which to fix them."""
        yield from self._lost_studies()
        yield from self._lapsed()
        yield from self._orphans()
        yield from self._unreported()
        yield from self._strays()
        yield from self._stuck()
        yield from self._unplanned()
        yield from self._contradictory()
        yield from self._foreign()
        yield from self._failed()
        yield from self._leftovers()

    def _lost_studies(self) -> Iterator[Finding]:
        existing = get_all_study_names(self.storage.optuna)
        for place in self.inspection.trials:
            name = self.ledger.optuna_name(*place)
            if name not in existing:
                create = partial(studies.optuna_study, self.storage, name, metric=self.spec.metric)
                yield Finding("its Optuna study is missing", name, "created again, without trials", create)

    def _lapsed(self) -> Iterator[Finding]:
        for row in self.inspection.rows:
            if row.id in self.inspection.expired:
                ago = duration(self.inspection.expired[row.id])
                held = f"held by {row.owner} (attempt {row.attempt}, epoch {row.epoch}), whose lease expired {ago} ago"
                fix = "freed: the next worker resumes from its checkpoint"
                yield Finding(held, _label(row), fix, partial(recovery.free, self.ledger, row))

    def _orphans(self) -> Iterator[Finding]:
        for row, (first, *others) in self.inspection.orphans():
            attach = partial(recovery.attach, self.ledger, row, first)
            fix = "attached: the next worker resumes it"
            yield Finding(f"it does not name its Optuna trial {first}", _label(row), fix, attach)
            for number in others:
                name = self.ledger.optuna_name(row.arm, row.block)
                yield self._stray(name, number)

    def _unreported(self) -> Iterator[Finding]:
        for row in recovery.unsettled(self.ledger):
            report = partial(tell, self._session(), row)
            what = f"{row.outcome}, but Optuna's trial {row.trial} is still running"
            yield Finding(what, _label(row), "reported to Optuna", report)

    def _strays(self) -> Iterator[Finding]:
        for name, number in recovery.strays(self.ledger):
            yield self._stray(name, number)

    def _stray(self, name: str, number: int) -> Finding:
        def fail() -> None:
            study = studies.optuna_study(self.storage, name)
            study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

        what = "running without a row: its row has another trial, or is gone"
        return Finding(what, f"{name} trial {number}", "ended as FAIL", fail)

    def _stuck(self) -> Iterator[Finding]:
        for row, trial in self.inspection.stuck():
            what = f"not done, but its Optuna trial {row.trial} {_state(trial)}"
            if self.inspection.alive(row):
                yield Finding(what, _label(row), f"left to its worker, {row.owner}; run repair again once it has ended")
            else:
                detach = partial(recovery.detach, self.ledger, row)
                yield Finding(what, _label(row), "detached: the next worker asks for another trial", detach)

    def _unplanned(self) -> Iterator[Finding]:
        for arm, block, ordinal in unplanned(self.spec, self.inspection.rows):
            of_block = f" of block {block}" if self.spec.search.blocks > 1 else ""
            yield Finding("has no row", f"search {arm} {ordinal}{of_block}", "planned", self._plan)

    def _plan(self) -> None:
        with studies.study_lock(self.storage, self.spec.name):
            plan_search(self.ledger, self.spec, budget(self.ledger.rows("search", curves=False)))

    def _contradictory(self) -> Iterator[Finding]:
        diverged = partial(value_of_diverged, self.spec.metric, self.inspection.rows)
        for row, trial in self.inspection.contradicted(diverged):
            value = "" if row.value is None else f" with {row.value:.6g}"
            what = f"{row.outcome}{value}, but its Optuna trial {row.trial} {_state(trial)}"
            fix = "left: the report uses the ledger, the sampler uses Optuna"
            if trial is None:
                fix = "left: its parameters are lost with it; restore the database, or give the study another name"
            yield Finding(what, _label(row), fix)

    def _foreign(self) -> Iterator[Finding]:
        for place, trial in self.inspection.foreign():
            where = f"{self.ledger.optuna_name(*place)} trial {trial.number}"
            if trial.state == TrialState.WAITING:
                yield Finding("waiting, enqueued by another program", where, "left: workers ignore enqueued trials")
            else:
                yield Finding("running, asked for by another program", where, "left: that program can end it")

    def _failed(self) -> Iterator[Finding]:
        for row in self.inspection.rows:
            if row.outcome == "failed":
                message = (row.message or "").partition("\n")[0]
                what = f"failed at attempt {row.attempt} ({row.failure}): {message}"
                yield Finding(what, _label(row), "left: `run` tries it again")

    def _leftovers(self) -> Iterator[Finding]:
        folder = self.out / "checkpoints"
        files = [path for path, _ in leftovers(self.ledger, self._session().artifacts)]
        if files:
            what = f"{counted(len(files), 'unneeded file')} ({size(sum(map(size_of, files)))})"
            yield Finding(
                what,
                str(folder),
                f"left: `{self.where.command('gc')}` removes {'it' if len(files) == 1 else 'them'}",
            )
        yield from self._objects()

    def _objects(self) -> Iterator[Finding]:
        """Objects in the store of the artifacts."""
        place = artifacts.place_of(self.storage, self.spec.name)
        if place is None:
            return
        try:
            published = Published(self.storage, self._session().artifacts, place)
            sizes = reached(lambda: published.unneeded(lambda: self.ledger.rows(curves=False)))
        except (StoreError, UsageError) as error:
            yield Finding(f"its artifacts cannot be reached: {error}", place.url, "left: workers wait for the store")
            return
        if sizes:
            what = f"{counted(len(sizes), 'unneeded object')} ({size(sum(sizes.values()))})"
            fix = f"left: `{self.where.command('gc')}` removes {'it' if len(sizes) == 1 else 'them'}"
            yield Finding(what, published.shown, fix)

    def _session(self) -> Session:
        tasks = Tasks(self.spec, device="cpu")  # reporting to Optuna needs no data, so none is loaded
        return Session(self.spec, self.storage, self.ledger, tasks, self.out, owner="repair")


def unplanned(spec: StudySpec, rows: Sequence[Row]) -> list[tuple[str, int, int]]:
    """(arm, block, ordinal) of missing search rows."""
    existing = {(row.arm, row.block, row.ordinal) for row in rows if row.stage == "search"}
    ordinals = range(budget([row for row in rows if row.stage == "search"]))
    blocks = range(1, spec.search.blocks + 1)
    planned = [(arm, block, ordinal) for block in blocks for ordinal in ordinals for arm in spec.arms]
    return [each for each in planned if each not in existing]


def budget(search: Sequence[Row]) -> int:
    """The number of trials that every arm and block must have.

    `run --trials` may differ from the study file. When it shrinks, started rows stay and rows that were never started
    are removed, so the last row that was never started tells the latest budget.
    """
    return 1 + max((row.ordinal for row in search if row.attempt == 0), default=0)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if it is gone."""
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _label(row: Row) -> str:
    return f"{describe(row)} (row {row.id})"


def _state(trial: FrozenTrial | None) -> str:
    if trial is None:
        return "is gone"
    value = "" if trial.value is None else f" with {trial.value:.6g}"
    return f"is {trial.state.name}{value}"
