"""`repair`: what is stuck in a study, and its mend. Beside running workers, and as often as one likes.

Findings are looked for first, all of them, and mended then, one by one. A mend changes nothing where a worker was
quicker, so what was found and what is done about it need not be one transaction.
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
from ralr_tune.commands.status import where as named
from ralr_tune.records import Row
from ralr_tune.report.words import duration, size
from ralr_tune.search.artifacts import ArtifactStore
from ralr_tune.search.session import Session
from ralr_tune.search.stages import plan_search
from ralr_tune.search.tasks import Tasks
from ralr_tune.search.telling import tell, value_of_diverged
from ralr_tune.store import recovery, studies
from ralr_tune.store.address import parse_address
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.schema import HEAD
from ralr_tune.studyfile import StudySpec, parse_study


@dataclass(frozen=True)
class Finding:
    """One thing that is stuck."""

    what: str
    where: str
    mend: str
    """What becomes of it, as a participle; or, without `act`, what to do about it."""
    act: Callable[[], object] | None = field(default=None, repr=False, compare=False)
    """Mends it; safe beside workers, and to repeat."""


@dataclass(frozen=True)
class Repair:
    """What was found in a study, and mended unless it was a rehearsal."""

    study: str
    storage: str
    """Its URL, the password masked."""
    dry_run: bool
    findings: list[Finding]

    def as_text(self) -> str:
        return "\n".join(map(self._line, self.findings)) or "nothing to mend"

    def as_json(self) -> dict[str, Any]:
        findings = [
            {"what": each.what, "where": each.where, "mend": each.mend, "mended": bool(each.act and not self.dry_run)}
            for each in self.findings
        ]
        return {"study": self.study, "storage": self.storage, "dry_run": self.dry_run, "findings": findings}

    def _line(self, found: Finding) -> str:
        would = "would be " if self.dry_run and found.act else ""
        return f"{found.where}: {found.what} -> {would}{found.mend}"


def repair_study(where: StudyLocation, *, dry_run: bool = False) -> Repair:
    """Finds what is stuck in a study and, unless `dry_run`, mends it. Loads neither data nor network.

    Raises StorageError where the database cannot be reached, lacks the study, or is to be migrated under workers.
    """
    studies.quiet_optuna()
    findings = _tables(where.storage_url, dry_run)
    _mend(findings, dry_run)
    if not (findings and dry_run):
        with opened(where) as storage:
            found = list(_Study(storage, where).findings())
            _mend(found, dry_run)
            findings += found
    return Repair(where.name, str(parse_address(where.storage_url)), dry_run, findings)


def _mend(findings: list[Finding], dry_run: bool) -> None:
    for found in findings:
        if found.act and not dry_run:
            found.act()


def _tables(url: str, dry_run: bool) -> list[Finding]:
    version = recovery.outdated(url)
    if version is None:
        return []
    what = f"its tables are of version {version}, this program's of version {HEAD}"
    advice = " (copy the database first); what else there is shows only then" if dry_run else ""
    migrate = partial(recovery.bring_up_to_date, url)
    return [Finding(what, str(parse_address(url)), f"brought up to date{advice}", migrate)]


class _Study:
    """One stored study, its ledger and Optuna's studies looked at together."""

    def __init__(self, storage: Storage, where: StudyLocation) -> None:
        text = studies.stored(storage, where.name).text
        self.storage, self.out, self.where = storage, where.out, where
        self.spec = parse_study(text, source=f"{where.name} (as stored)")
        self.ledger = Ledger(storage, self.spec.name, self.spec.storage.lease_s)
        blocks = range(1, self.spec.search.blocks + 1)
        self.inspection = recovery.inspect(self.ledger, [(arm, block) for arm in self.spec.arms for block in blocks])

    def findings(self) -> Iterator[Finding]:
        """In the order in which they are mended."""
        yield from self._lost_studies()
        yield from self._lapsed()
        yield from self._orphans()
        yield from self._untold()
        yield from self._strays()
        yield from self._stuck()
        yield from self._unplanned()
        yield from self._contradicted()
        yield from self._foreign()
        yield from self._failed()
        yield from self._leftovers()

    def _lost_studies(self) -> Iterator[Finding]:
        there = get_all_study_names(self.storage.optuna)
        for place in self.inspection.trials:
            name = studies.optuna_name(self.spec.name, *place)
            if name not in there:
                made = partial(studies.optuna_study, self.storage, name, metric=self.spec.metric)
                yield Finding("its Optuna study is gone", name, "made anew, without trials", made)

    def _lapsed(self) -> Iterator[Finding]:
        for row in self.inspection.rows:
            if row.id in self.inspection.lapsed:
                ago = duration(self.inspection.lapsed[row.id])
                held = f"held by {row.owner} (attempt {row.attempt}, epoch {row.epoch}), whose lease ran out {ago} ago"
                mend = "freed: the next worker goes on from its checkpoint"
                yield Finding(held, _row(row), mend, partial(recovery.free, self.ledger, row))

    def _orphans(self) -> Iterator[Finding]:
        for row, (first, *others) in self.inspection.orphans():
            noted = partial(recovery.attach, self.ledger, row, first)
            mend = "noted: the next worker goes on with it"
            yield Finding(f"trial {first} was asked for it, and it does not name it", _row(row), mend, noted)
            for number in others:
                name = studies.optuna_name(self.spec.name, row.arm, row.block)
                yield self._stray(name, number)

    def _untold(self) -> Iterator[Finding]:
        for row in recovery.unsettled(self.ledger):
            told = partial(tell, self._session(), row)
            yield Finding(
                f"{row.outcome}, and Optuna's trial {row.trial} still runs", _row(row), "told to Optuna", told
            )

    def _strays(self) -> Iterator[Finding]:
        for name, number in recovery.strays(self.ledger):
            yield self._stray(name, number)

    def _stray(self, name: str, number: int) -> Finding:
        def end() -> None:
            study = studies.optuna_study(self.storage, name)
            study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

        what = "runs for nobody: its row has another trial, or is gone"
        return Finding(what, f"{name} trial {number}", "ended as FAIL", end)

    def _stuck(self) -> Iterator[Finding]:
        for row, trial in self.inspection.stuck():
            what = f"not done, and its Optuna trial {row.trial} {_ended(trial)}"
            if self.inspection.alive(row):
                yield Finding(what, _row(row), f"left to its worker, {row.owner}; repair again once that is gone")
            else:
                anew = partial(recovery.detach, self.ledger, row)
                yield Finding(what, _row(row), "made to ask for another", anew)

    def _unplanned(self) -> Iterator[Finding]:
        for arm, block, ordinal in unplanned(self.spec, self.inspection.rows):
            of_block = f" of block {block}" if self.spec.search.blocks > 1 else ""
            yield Finding("no row plans it", f"search {arm} {ordinal}{of_block}", "planned", self._plan)

    def _plan(self) -> None:
        with studies.study_lock(self.storage, self.spec.name):
            plan_search(self.ledger, self.spec, budget(self.ledger.rows("search", curves=False)))

    def _contradicted(self) -> Iterator[Finding]:
        diverged = partial(value_of_diverged, self.spec.metric, self.inspection.rows)
        for row, trial in self.inspection.contradicted(diverged):
            value = "" if row.value is None else f" with {row.value:.6g}"
            what = f"{row.outcome}{value}, and its Optuna trial {row.trial} {_ended(trial)}"
            mend = "left: the report goes by the ledger, the sampler by Optuna"
            if trial is None:
                mend = "left: its parameters are gone with it; restore the database, or give the study another name"
            yield Finding(what, _row(row), mend)

    def _foreign(self) -> Iterator[Finding]:
        for place, trial in self.inspection.foreign():
            where = f"{studies.optuna_name(self.spec.name, *place)} trial {trial.number}"
            if trial.state == TrialState.WAITING:
                yield Finding("waits, enqueued by somebody", where, "left: no worker takes up what others enqueue")
            else:
                yield Finding("runs, asked for by somebody else", where, "left: who asked for it can end it")

    def _failed(self) -> Iterator[Finding]:
        for row in self.inspection.rows:
            if row.outcome == "failed":
                said = (row.message or "").partition("\n")[0]
                what = f"failed at attempt {row.attempt} ({row.failure}): {said}"
                yield Finding(what, _row(row), "left: `run` opens it again")

    def _leftovers(self) -> Iterator[Finding]:
        folder = self.out / "checkpoints"
        files = [path for path, _ in leftovers(self.storage, ArtifactStore(folder, self.spec))]
        if files:
            what = f"{counted(len(files), 'file')} that nobody will read ({size(sum(map(size_of, files)))})"
            yield Finding(
                what,
                str(folder),
                f"left: `{self.where.command('gc')}` removes {'it' if len(files) == 1 else 'them'}",
            )

    def _session(self) -> Session:
        tasks = Tasks(self.spec, device="cpu")  # what is reported to Optuna takes no data: none is loaded
        return Session(self.spec, self.storage, self.ledger, tasks, self.out, owner="repair")


def unplanned(spec: StudySpec, rows: Sequence[Row]) -> list[tuple[str, int, int]]:
    """(arm, block, ordinal) of search rows that must be there and are not."""
    there = {(row.arm, row.block, row.ordinal) for row in rows if row.stage == "search"}
    ordinals = range(budget([row for row in rows if row.stage == "search"]))
    blocks = range(1, spec.search.blocks + 1)
    planned = [(arm, block, ordinal) for block in blocks for ordinal in ordinals for arm in spec.arms]
    return [each for each in planned if each not in there]


def budget(search: Sequence[Row]) -> int:
    """The number of trials that every arm and block must have.

    `run --trials` may be more or less than the study file says, and rows that were begun stay when it becomes less; but
    rows that nobody began are taken away then, so the last of them says what was planned last.
    """
    return 1 + max((row.ordinal for row in search if row.attempt == 0), default=0)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where it is gone by now."""
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _row(row: Row) -> str:
    return f"{named(row)} (row {row.id})"


def _ended(trial: FrozenTrial | None) -> str:
    if trial is None:
        return "is gone"
    value = "" if trial.value is None else f" with {trial.value:.6g}"
    return f"is {trial.state.name}{value}"
