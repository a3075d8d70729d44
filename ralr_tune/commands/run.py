"""`run`: everything, from a study file to an answer. Starting again goes on from where it stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from ralr_tune.commands.report import Report, make_report
from ralr_tune.errors import Interrupted, RalrTuneError, TrialError, UsageError
from ralr_tune.launch.devices import Place, places
from ralr_tune.launch.inprocess import InProcess
from ralr_tune.launch.launcher import Job, Launcher
from ralr_tune.launch.local import STORAGE_VARIABLE, LocalProcesses
from ralr_tune.launch.signals import handling
from ralr_tune.search.samplers import make_pruner, make_sampler
from ralr_tune.search.stages import advance, plan_search
from ralr_tune.spec import StudySpec, parse_study
from ralr_tune.spec.changes import changes
from ralr_tune.store import studies
from ralr_tune.store.address import sqlite_url
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger

POLL_S = 0.25
STOP_S = 60.0
"""How long workers get to write down what they have."""
MAX_RESTARTS = 10
"""A worker that was killed is started again this often."""

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
        confirm: False ends after the search.
        launcher: "local" (processes), or "inprocess" (threads of this process, for tests and small notebooks).
        progress: called a few times a second with the open storage and the study's name.

    Raises UsageError before anything is started, TrialError when a failed trial ends the study, Interrupted
    (resumable) on Ctrl-C, StorageError when the database cannot be reached.
    """
    _check_arguments(spec, trials, hours)
    where = places(devices, workers)
    out = out or Path("runs") / spec.name
    out.mkdir(parents=True, exist_ok=True)
    url = storage or os.environ.get(STORAGE_VARIABLE) or spec.storage.url or sqlite_url((out / "study.db").absolute())
    studies.quiet_optuna()
    opened = open_storage(url, create=True)
    try:
        ledger = _prepare(opened, spec, trials or spec.search.trials)
        job = Job(spec.name, url, out.absolute(), until="test" if confirm else "search")
        if advance(ledger, opened, spec, job.until) is not None:
            watch = _Watch(LAUNCHERS[launcher](), job, where, hours)
            watch.until_done(lambda: progress(opened, spec.name) if progress else None)
        return make_report(opened, spec.name, out)
    finally:
        opened.dispose()


def _check_arguments(spec: StudySpec, trials: int | None, hours: float | None) -> None:
    if trials is not None and trials < 1:
        raise UsageError(f"--trials {trials}: at least 1")
    if hours is not None and not hours > 0:
        raise UsageError(f"--hours {hours}: more than 0")
    make_pruner(spec)  # options that Optuna does not take are told before anything starts
    make_sampler(spec, next(iter(spec.arms)), 1, 0)


def _prepare(storage: Storage, spec: StudySpec, trials: int) -> Ledger:
    """The study as it shall be: registered, one Optuna study for each arm and block, the budget as rows."""
    with studies.study_lock(storage, spec.name):
        _register(storage, spec)
        for arm in spec.arms:
            for block in range(1, spec.search.blocks + 1):
                name = studies.optuna_name(spec.name, arm, block)
                studies.optuna_study(storage, name, direction=spec.direction)
        ledger = Ledger(storage, spec.name, spec.storage.lease_s)
        plan_search(ledger, spec, trials)
        ledger.reopen_failed()
    return ledger


def _register(storage: Storage, spec: StudySpec) -> None:
    if spec.name not in studies.names(storage):
        studies.register(storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
        return
    stored = studies.stored(storage, spec.name)
    if stored.text == spec.text:
        return
    found = changes(parse_study(stored.text), spec)
    refused = [str(change) for change in found if not change.harmless]
    if refused:
        raise UsageError(
            f"study {spec.name} in {storage.masked} was started with another file, and its trials would not be "
            f"comparable: {'; '.join(refused)}. Give the study another name, or change the file back"
        )
    studies.update_text(storage, spec.name, text=spec.text, fingerprint=spec.fingerprint)


@dataclass
class _Watch:
    """Starts the workers, starts killed ones again, and stops all when one gives up or the time is over."""

    launcher: Launcher
    job: Job
    places: list[Place]
    hours: float | None
    restarts: dict[int, int] = field(default_factory=dict)

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
        restarts = self.restarts.get(place.index, 0)
        if code in (RalrTuneError.exit_code, UsageError.exit_code) or restarts >= MAX_RESTARTS:
            raise TrialError("lost", self._reason(place, code))
        self.restarts[place.index] = restarts + 1
        self.launcher.start(self.job, place)

    def _reason(self, place: Place, code: int | None) -> str:
        log = self.launcher.tail(place.index)
        errors = [line.removeprefix("error: ") for line in log.splitlines() if line.startswith("error: ")]
        said = errors[-1] if errors else f"its log ends:\n{log}"
        return f"worker {place.index} ended with code {code}: {said} (log: {self.job.out / 'logs'})"


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
