"""Injects faults at random moments of a real study, and checks what must be true afterwards.

A storm starts `ralr_tune run`, restarts it if it ends early, and sends signals to its workers, to the programs that
they started, and to `run` itself. A fault counts only if a trial was running: its target holds a row, it is the program
of a worker that does, or it is `run` while any row is held.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
from optuna.trial import FrozenTrial, TrialState

from ralr_tune.child import guard
from ralr_tune.errors import TrialError
from ralr_tune.kinds.simulated.task import SimulatedTask
from ralr_tune.records import EpochRecord, Row
from ralr_tune.search.artifacts import confirm_configuration
from ralr_tune.search.audits import sampled
from ralr_tune.search.tasks import Tasks
from ralr_tune.store import studies
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.tasks.trial import Trial
from tests.faults.rotation import Rotation

FAULTS = ("SIGKILL", "SIGSTOP", "SIGTERM", "SIGINT")
CHILD_FAULTS = ("child SIGKILL", "child SIGSTOP", "child SIGTERM", "worker and child SIGKILL")
"""For kinds whose trials are programs: the child is the program that a worker's guard started."""
RUN_SHARE = 0.08
"""Share of the faults that target `run` itself."""
MAX_HITS = 5
"""Faults of one row after one epoch: ten losses without a new epoch would end the study."""
END_S = 1200.0
"""How long a study may take after the last fault."""
LEAVE_S = 120.0
"""How long processes may take to exit once `run` has ended."""


@dataclass
class FaultStatistics:
    """What a storm has done."""

    counted: Counter[str] = field(default_factory=Counter)
    """Faults by kind, prefixed with "run" if the target was `run`."""
    idle: int = 0
    """Signals not sent because no worker held a row; they do not count."""
    resumed_after_s: list[float] = field(default_factory=list)
    """Seconds from SIGKILL until the row was held again."""
    runs: int = 0

    @property
    def faults(self) -> int:
        return sum(self.counted.values())


class Storm:
    """Injects faults into one study after another, until there are enough of them.

    `temporary`: the folder for temporary files; None: the system's.
    """

    def __init__(
        self,
        url: str,
        out: Path,
        *,
        workers: int,
        seed: int,
        pause_s: tuple[float, float],
        faults: Sequence[str] = FAULTS,
        temporary: Path | None = None,
    ) -> None:
        self._url, self._out, self._workers, self._pause_s = url, out, workers, pause_s
        self._environment = dict(os.environ) if temporary is None else os.environ | {"TMPDIR": str(temporary)}
        self._chance = random.Random(seed)
        self._kinds = Rotation(faults, self._chance)
        self.stats = FaultStatistics()
        self._hits: Counter[tuple[int, int]] = Counter()
        self._killed: dict[int, tuple[int, float]] = {}
        self._suspended: list[tuple[float, psutil.Process]] = []

    def run_study(self, text: str, faults: int) -> StudySpec:
        """Runs the study of `text` to its end with at most `faults` more faults."""
        self._hits.clear()
        spec = parse_study(text)
        file = self._out / f"{spec.name}.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        storage = open_storage(self._url, create=True)
        try:
            self._drive(spec, file, storage, self.stats.faults + faults)
        finally:
            storage.dispose()
        return spec

    def _drive(self, spec: StudySpec, file: Path, storage: Storage, until: int) -> None:
        ledger = Ledger(storage, spec.name)
        end = float("inf")
        run = self._start(file)
        while True:
            time.sleep(self._chance.uniform(*self._pause_s))
            code = run.poll()
            if code == 0 and not self._suspended:
                return
            if code is not None and code != 0:
                assert code in (130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT), self._log_tail(file)
                run = self._start(file)
            elif code is None and self.stats.faults < until:
                self._inject_fault(run, ledger.rows(curves=False), spec.storage.lease_s)
            elif end == float("inf"):
                end = time.monotonic() + END_S
            assert time.monotonic() < end, "the study does not end"
            self._continue_suspended()
            self._record_resumed(ledger)

    def _start(self, file: Path) -> subprocess.Popen[bytes]:
        self.stats.runs += 1
        command = [sys.executable, "-m", "ralr_tune", "run", str(file), "--workers", str(self._workers), "--quiet"]
        with (file.with_suffix(".log")).open("ab") as log:
            return subprocess.Popen(
                [*command, "--storage", self._url, "--out", str(self._out / file.stem)],
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    def _log_tail(self, file: Path) -> str:
        return file.with_suffix(".log").read_text()[-3000:]

    def _inject_fault(self, run: subprocess.Popen[bytes], rows: list[Row], lease_s: float) -> None:
        kind = self._kinds.drawn()
        held = {int(row.owner.split(":")[1]): row for row in rows if row.state == "held" and row.owner}
        here = {process.pid for process in self._processes(run)} & set(held)
        here -= {process.pid for _, process in self._suspended}
        here -= {pid for pid in here if self._hits[held[pid].id, held[pid].epoch] >= MAX_HITS}
        if not here:
            self.stats.idle += 1
            return
        if self._chance.random() < RUN_SHARE and kind in FAULTS and kind != "SIGSTOP":
            run.send_signal(signal.Signals[kind])
            self.stats.counted[f"run {kind}"] += 1
            return
        pid = self._chance.choice(sorted(here))
        with suppress(psutil.NoSuchProcess):
            targets = self._targets(psutil.Process(pid), kind)
            if not targets:
                self.stats.idle += 1
                return
            for target in targets:
                self._send_signal(target, kind.rpartition(" ")[2], lease_s)
            if kind.endswith("SIGKILL"):
                self._killed[held[pid].id] = (held[pid].attempt, time.monotonic())
            self.stats.counted[kind] += 1
            self._kinds.used()
            self._hits[held[pid].id, held[pid].epoch] += 1

    def _targets(self, worker: psutil.Process, kind: str) -> list[psutil.Process]:
        """The processes that get the signal, in this order; none if the worker has no program now."""
        if "child" not in kind:
            return [worker]
        programs = [
            program
            for process in worker.children()
            if guard.__file__ in process.cmdline()
            for program in process.children()[:1]
        ]
        if not programs or kind.startswith("child"):
            return programs
        return self._chance.sample([worker, *programs], 2)

    def _send_signal(self, process: psutil.Process, kind: str, lease_s: float) -> None:
        process.send_signal(signal.Signals[kind])
        if kind == "SIGSTOP":  # beyond the lease: another worker resumes the row of a suspended one
            self._suspended.append((time.monotonic() + lease_s * self._chance.uniform(1.1, 1.6), process))

    def _continue_suspended(self) -> None:
        for when, process in list(self._suspended):
            if time.monotonic() > when:
                self._suspended.remove((when, process))
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)

    def _record_resumed(self, ledger: Ledger) -> None:
        """Records when rows of killed workers are held again, with the precision of a pause."""
        for row in ledger.rows(curves=False):
            attempt, killed = self._killed.get(row.id, (row.attempt, 0.0))
            if row.attempt > attempt:
                self.stats.resumed_after_s.append(time.monotonic() - killed)
                del self._killed[row.id]

    @staticmethod
    def _processes(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(run.pid).children()
        return []


def violations(
    url: str, spec: StudySpec, out: Path, *, retrained: int | None = None, temporary: Path | None = None
) -> dict[str, list[str]]:
    """Everything that must not happen, by the guarantee that it breaks; all lists are empty if none is broken.

    `retrained`: how many rows are trained again, without faults, to compare every epoch; None: all of them.
    `temporary`: as for the storm.
    """
    storage = open_storage(url)
    try:
        rows = Ledger(storage, spec.name).rows()
        return {
            "lost": list(_lost(storage, spec, rows)),
            "duplicated": list(_duplicated(storage, spec, rows)),
            "stuck": [*_stuck(storage, spec, rows), *_leftovers(out), *_sockets(temporary)],
            "differs": list(_differing(storage, spec, rows, retrained)),
        }
    finally:
        storage.dispose()


def _lost(storage: Storage, spec: StudySpec, rows: list[Row]) -> Iterator[str]:
    for arm in spec.arms:
        search = [row for row in rows if row.arm == arm and row.stage == "search"]
        finished = [
            trial for trial in _trials(storage, spec, arm) if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        ]
        if len(search) != spec.search.trials or len(finished) != spec.search.trials:
            yield f"{arm}: {len(search)} rows and {len(finished)} finished trials for a budget of {spec.search.trials}"
    audits = {(row.arm, row.block, row.ordinal): row for row in rows if row.stage == "audit"}
    for row in sampled(spec, rows):
        audit = audits.get((row.arm, row.block, row.ordinal))
        if audit is None or [record.value for record in audit.curve[: row.epoch]] != [r.value for r in row.curve]:
            yield f"row {row.id} was pruned, and its audit is {audit}"
    for row in rows:
        if [record.epoch for record in row.curve] != list(range(1, row.epoch + 1)):
            yield f"row {row.id}: epochs {[record.epoch for record in row.curve]} of {row.epoch}"


def _duplicated(storage: Storage, spec: StudySpec, rows: list[Row]) -> Iterator[str]:
    for arm in spec.arms:
        numbers = Counter(row.trial for row in rows if row.arm == arm and row.stage == "search")
        yield from (f"{arm}: trial {number} has {times} rows" for number, times in numbers.items() if times > 1)
        rows_of = Counter(
            trial.user_attrs[studies.ROW_MARK]
            for trial in _trials(storage, spec, arm)
            if trial.state != TrialState.FAIL
        )
        yield from (f"{arm}: row {row} has {times} trials" for row, times in rows_of.items() if times > 1)
    plan = Counter((row.arm, row.stage, row.block, row.ordinal, row.role, row.source) for row in rows)
    yield from (f"{key} is planned {times} times" for key, times in plan.items() if times > 1)


def _stuck(storage: Storage, spec: StudySpec, rows: list[Row]) -> Iterator[str]:
    yield from (
        f"row {row.id} is {row.state}, {row.outcome}" for row in rows if row.state != "done" or row.outcome == "failed"
    )
    for arm in spec.arms:
        for trial in _trials(storage, spec, arm):
            if trial.state in (TrialState.RUNNING, TrialState.WAITING):
                yield f"{arm}: trial {trial.number} is {trial.state.name}"


def _leftovers(out: Path) -> Iterator[str]:
    """Processes and checkpoints that remain."""
    end = time.monotonic() + LEAVE_S
    while (alive := _alive(out)) and time.monotonic() < end:
        time.sleep(0.2)
    yield from (f"process {line} is alive" for line in alive)
    yield from (f"{path.name} is left" for path in out.glob("*/checkpoints/*"))
    yield from (f"{path.name} is left" for path in out.glob("checkpoints/*"))


def _sockets(temporary: Path | None) -> Iterator[str]:
    """Folders of channels that remain; call it when no process is left."""
    yield from (f"{path} is left" for path in ([] if temporary is None else temporary.glob("ralr_tune-*")))


def _alive(out: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.status() != psutil.STATUS_ZOMBIE and any(str(out) in word for word in process.cmdline()):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
    return found


def _differing(storage: Storage, spec: StudySpec, rows: list[Row], retrained: int | None) -> Iterator[str]:
    """Compares every epoch of every row with Optuna's reports and with a training without faults."""
    for arm in spec.arms:
        trials = {trial.number: trial for trial in _trials(storage, spec, arm)}
        for row in rows:
            if row.arm == arm and row.stage == "search" and row.outcome != "diverged" and row.trial is not None:
                reported = dict(sorted(trials[row.trial].intermediate_values.items()))
                if reported != {record.epoch: record.value for record in row.curve}:
                    yield f"row {row.id}: reported {reported}, kept {row.curve}"
    chosen = rows if retrained is None else random.Random(0).sample(rows, min(retrained, len(rows)))
    tasks = Tasks(spec, device="cpu")
    for row in chosen:
        yield from _differs_from_undisturbed(storage, spec, tasks, row)


def _differs_from_undisturbed(storage: Storage, spec: StudySpec, tasks: Tasks, row: Row) -> Iterator[str]:
    if row.stage == "search":
        name = studies.optuna_name(spec.name, row.arm, row.block)
        params = studies.optuna_trials(storage, name)[row.trial or 0].params
        configuration = spec.configuration(row.arm, params)
    else:
        configuration = confirm_configuration(spec, row)
    task = tasks.of(configuration.task)
    if isinstance(task, SimulatedTask):
        task = replace(task, seconds_per_epoch=0.0)  # the values do not depend on it
    trial = spec.kind.trial(task, configuration, seed=row.seed)
    undisturbed = _until_diverged(trial)
    for kept, again in zip(row.curve, undisturbed, strict=False):  # a pruned row is shorter
        if again is None or replace(kept, seconds=0.0) != replace(again, seconds=0.0):
            yield f"row {row.id} epoch {kept.epoch}: {kept} was disturbed, {again} was not"
    if row.outcome == "diverged" and next(undisturbed, None) is not None:
        yield f"row {row.id} diverged after epoch {row.epoch}, the undisturbed training did not"
    if row.outcome == "complete" and row.stage == "test":
        list(undisturbed)
        if trial.evaluate("test") != row.value:
            yield f"row {row.id}: {row.value} on the test split was disturbed, {trial.evaluate('test')} was not"
    undisturbed.close()


def _until_diverged(trial: Trial) -> Generator[EpochRecord | None, None, None]:
    """The epochs of a trial; a last one that is None if it diverges."""
    try:
        yield from trial.epochs()
    except TrialError as error:
        if error.kind != "diverged":
            raise
        yield None


def _trials(storage: Storage, spec: StudySpec, arm: str) -> list[FrozenTrial]:
    blocks = range(1, spec.search.blocks + 1)
    found = (studies.optuna_trials(storage, studies.optuna_name(spec.name, arm, block)) for block in blocks)
    return [trial for trials in found for trial in trials.values()]
