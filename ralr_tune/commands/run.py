"""`run`: everything, from a study file to an answer. Starting again goes on from where it stopped."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ralr_tune.errors import Interrupted, RalrTuneError, TrialError, UsageError
from ralr_tune.launch.devices import Place, places
from ralr_tune.launch.inprocess import InProcess
from ralr_tune.launch.launcher import Job, Launcher
from ralr_tune.launch.local import STORAGE_VARIABLE, LocalProcesses
from ralr_tune.launch.signals import handling
from ralr_tune.records import Stage
from ralr_tune.search.kept import Kept
from ralr_tune.search.samplers import make_pruner, make_sampler
from ralr_tune.search.stages import advance, plan_search, withdraw_audits
from ralr_tune.store import incidents, studies
from ralr_tune.store.address import parse_address, sqlite_url
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.file import refuse_network
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.studyfile.changes import changes
from ralr_tune.studyfile.imports import imports as imported
from ralr_tune.studyfile.imports import refuse_imports
from ralr_tune.training.together import Slots

if TYPE_CHECKING:
    from ralr_tune.commands.report import Report

log = logging.getLogger(__name__)

POLL_S = 0.25
OTHERS_S = 2.0
"""How often workers elsewhere are looked after."""
STOP_S = 60.0
"""How long workers get to write down what they have."""
MAX_RESTARTS = 10
"""So often for each worker are killed ones started again while no epoch is finished in between."""

LAUNCHERS: dict[str, Callable[[], Launcher]] = {"local": LocalProcesses, "inprocess": InProcess}

Progress = Callable[[Storage, str], None]
"""Called a few times a second while workers work."""


def run(
    spec: StudySpec,
    *,
    storage: str | None = None,
    out: Path | None = None,
    workers: int | None = None,
    devices: str = "auto",
    trials: int | None = None,
    hours: float | None = None,
    confirm: bool = True,
    launcher: str = "local",
    start_workers: bool = True,
    slots: Slots = 1,
    imports: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Create or resume a study, search all arms, confirm, test, report and export.

    Args:
        storage: SQLAlchemy URL; None: RALR_TUNE_STORAGE, else the study file's, else OUT/study.db.
        out: folder of report, logs and checkpoints; None: runs/STUDY.
        workers: number of worker processes; None: one a GPU, or one a CPU core.
        devices: "auto", or a list such as "cuda:0,cuda:1" or "cpu".
        trials: search trials for each arm and block; None: the study file's.
        hours: stop after this long, with everything kept and a report of what there is.
        confirm: False ends after the search and its audits.
        launcher: "local" (processes), or "inprocess" (threads of this process, for tests and small notebooks).
        start_workers: False starts none, and waits until workers elsewhere have done everything.
        slots: trials that a worker trains at once as one network; "auto" times a few steps and finds out how many.
        imports: False refuses a file that names code to import (its network), here and in every worker.
        force: take a SQLite file on a network file system, where its locks cannot be trusted.
        progress: called a few times a second with the open storage and the study's name.

    Raises UsageError before anything is started, TrialError when a failed trial ends the study, Interrupted
    (resumable) on Ctrl-C, StorageError when the database cannot be reached.
    """
    _check_arguments(spec, trials, hours)
    _check_imports(spec, imports)
    where = places(devices, workers) if start_workers else []
    out = _made(out or Path("runs") / spec.name)
    url = _url(spec, storage, out)
    with _database(url, force) as opened:
        ledger = _prepare(opened, spec, trials or spec.search.trials)
        until: Stage = "test" if confirm else "search"
        job = Job(spec.name, url, out.absolute(), until, slots=slots, imports=imports, force=force)
        if advance(ledger, opened, spec, job.until) is not None:
            watch = (
                _Watch(LAUNCHERS[launcher](), job, where, hours, ledger) if where else _Others(job, spec, hours, ledger)
            )
            watch.until_done(lambda: progress(opened, spec.name) if progress else None)
            Kept(job.out / "checkpoints", spec).tidy(lambda: ledger.rows(curves=False))
        from ralr_tune.commands.report import make_report  # only now: the workers need not wait for it

        return make_report(opened, spec.name, out)


def init(
    spec: StudySpec,
    *,
    storage: str | None = None,
    out: Path | None = None,
    trials: int | None = None,
    imports: bool = True,
    force: bool = False,
) -> str:
    """Create a study and its plan as `run` does, for workers elsewhere to join, and leave; safe to repeat.

    Arguments and errors are those of `run`. Returns a line that says what there is now.
    """
    _check_arguments(spec, trials, None)
    _check_imports(spec, imports)
    with _database(_url(spec, storage, _made(out or Path("runs") / spec.name)), force) as opened:
        rows = _prepare(opened, spec, trials or spec.search.trials).rows(curves=False)
        planned = sum(row.stage == "search" for row in rows)
        name = spec.name
        return f"study {name} is ready in {opened.masked}: {planned} trials planned; join: ralr-tune worker {name}"


def _url(spec: StudySpec, storage: str | None, out: Path) -> str:
    return storage or os.environ.get(STORAGE_VARIABLE) or spec.storage.url or sqlite_url((out / "study.db").absolute())


@contextmanager
def _database(url: str, force: bool) -> Iterator[Storage]:
    """The study's storage, made if need be."""
    studies.quiet_optuna()
    if not force:
        refuse_network(parse_address(url))
    opened = open_storage(url, create=True)
    try:
        yield opened
    finally:
        opened.dispose()


def _check_arguments(spec: StudySpec, trials: int | None, hours: float | None) -> None:
    if trials is not None and trials < 1:
        raise UsageError(f"--trials {trials}: at least 1")
    if hours is not None and not hours > 0:
        raise UsageError(f"--hours {hours}: more than 0")
    make_pruner(spec)  # options that Optuna does not take are told before anything starts
    make_sampler(spec, next(iter(spec.arms)), 1, 0)


def _check_imports(spec: StudySpec, allowed: bool) -> None:
    """What the file imports is told before it runs, or refused."""
    if not allowed:
        refuse_imports(spec.task)
    for named in imported(spec.task):
        log.info("%s", named)


def _made(out: Path) -> Path:
    """The out folder, made if need be. UsageError where that cannot be, or where nothing can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be made: {error.strerror}") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise UsageError(f"--out {out}: nothing can be written there; give a folder of your own")
    return out


def _prepare(storage: Storage, spec: StudySpec, trials: int) -> Ledger:
    """The study as it shall be: registered, one Optuna study for each arm and block, the budget as rows."""
    with studies.study_lock(storage, spec.name):
        _register(storage, spec)
        for arm in spec.arms:
            for block in range(1, spec.search.blocks + 1):
                name = studies.optuna_name(spec.name, arm, block)
                studies.optuna_study(storage, name, metric=spec.metric)
        ledger = Ledger(storage, spec.name, spec.storage.lease_s)
        plan_search(ledger, spec, trials)
        ledger.reopen_failed()
        withdraw_audits(ledger, spec)
    return ledger


def _register(storage: Storage, spec: StudySpec) -> None:
    if spec.name not in studies.names(storage):
        studies.register(storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
        return
    stored = studies.stored(storage, spec.name)
    if stored.text == spec.text:
        return
    ledger = Ledger(storage, spec.name)
    before = parse_study(stored.text, source=f"{spec.name} (as stored)")
    found = changes(before, spec, looked=any(row.attempt for row in ledger.rows("judge", curves=False)))
    refused = [str(change) for change in found if not change.taken]
    if refused and not _taken_back(ledger):
        raise UsageError(
            f"study {spec.name} in {storage.masked} was started with another file, and its trials would not be "
            f"comparable: {'; '.join(refused)}. Give the study another name, or change the file back"
        )
    for change in found:
        log.info("study file changed: %s", f"{change.key} (no trial was begun)" if refused else change)
    studies.update_text(storage, spec.name, text=spec.text, fingerprint=spec.fingerprint)


def _taken_back(ledger: Ledger) -> bool:
    """Takes the plan back if no trial of it was begun: then any file may take the place of the one that made it."""
    rows = ledger.rows(curves=False)
    if any(row.attempt for row in rows):
        return False
    for arm, block in {(row.arm, row.block) for row in rows}:
        ledger.withdraw(arm, block, keep=0)
    return True


@dataclass
class _Watch:
    """Starts the workers, starts killed ones again, and stops all when one gives up or the time is over."""

    launcher: Launcher
    job: Job
    places: list[Place]
    hours: float | None
    ledger: Ledger
    _restarts: int = 0
    _moved: tuple[int, int] = (0, 0)

    def until_done(self, tick: Callable[[], None]) -> None:
        deadline = float("inf") if self.hours is None else time.monotonic() + 3600 * self.hours
        with _signals_as_interrupt():
            try:
                for place in self.places:
                    self.launcher.start(self.job, place)
                while self._working() and time.monotonic() < deadline:
                    tick()
                    time.sleep(POLL_S)
                tick()
            except KeyboardInterrupt:
                raise Interrupted("interrupted; everything is kept, and the same command goes on from here") from None
            finally:
                self.launcher.stop(STOP_S)

    def _working(self) -> bool:
        codes = self.launcher.poll()
        for place in self.places:
            code = codes[place.index]
            if code not in (None, 0):
                self._ended_badly(place, code)
        return any(code is None for code in self.launcher.poll().values())

    def _ended_badly(self, place: Place, code: int | None) -> None:
        if code in (RalrTuneError.exit_code, UsageError.exit_code) or self._restarted() > MAX_RESTARTS * len(
            self.places
        ):
            raise self._reason(place, code)
        log.warning("worker %d was ended from outside (code %s); another takes its place", place.index, code)
        self.launcher.start(self.job, place)

    def _restarted(self) -> int:
        """How many restarts there have been, with this one, since the study was last brought forward."""
        moved = self.ledger.moved()
        self._restarts = 1 if moved != self._moved else self._restarts + 1
        self._moved = moved
        return self._restarts

    def _reason(self, place: Place, code: int | None) -> TrialError:
        tail = self.launcher.tail(place.index)
        errors = [line.removeprefix("error: ") for line in tail.splitlines() if line.startswith("error: ")]
        said = errors[-1] if errors else f"its log ends:\n{tail}"
        logs = self.job.out / "logs"
        incident = incidents.latest(self.ledger.storage, self.job.study)
        ours = incident is not None and incident.message in said
        return TrialError(
            incident.kind if incident and ours else "lost",
            f"worker {place.index} ended with code {code}: {said} (log: {logs})",
            incident.detail if incident and ours else "",
        )


@dataclass
class _Others:
    """Starts no worker: watches those elsewhere until they have done everything."""

    job: Job
    spec: StudySpec
    hours: float | None
    ledger: Ledger

    def until_done(self, tick: Callable[[], None]) -> None:
        """Raises TrialError when a failed trial ended the study, Interrupted when asked to stop."""
        deadline = float("inf") if self.hours is None else time.monotonic() + 3600 * self.hours
        with _signals_as_interrupt():
            try:
                while time.monotonic() < deadline and self._left():
                    tick()
                    time.sleep(OTHERS_S)
                tick()
            except KeyboardInterrupt:
                raise Interrupted("interrupted; workers elsewhere go on, and the same command watches again") from None

    def _left(self) -> bool:
        return advance(self.ledger, self.ledger.storage, self.spec, self.job.until) is not None


@contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """SIGTERM and a closed terminal stop a run as Ctrl-C does.

    Outside of the main thread Python allows no handlers, and none are set.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handling(interrupt, signal.SIGTERM, signal.SIGHUP):
        yield
