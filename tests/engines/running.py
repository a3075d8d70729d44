"""`run` of one study with a launcher, as a process that a test may kill, the state of its rows, and faults."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Generic, TypeVar

from ralr_tune.records import Row
from ralr_tune.search.stages import pending_stage
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import parse_study
from tests.faults.rotation import Rotation
from tests.studies import simulated_text
from tests.waiting import LONG_S, until

C = TypeVar("C")

FAULTS = int(os.environ.get("RALR_TUNE_ENGINE_FAULTS", "8"))
LEASE_S = 6.0
WORKERS = 3


def study_text(name: str, trials: int = 8) -> str:
    return simulated_text(
        study={"name": name},
        task={"data": {"seconds_per_epoch": 0.4}},
        training={"epochs": 10},
        search={"trials": trials},
        confirm={"top": 1, "seeds": 3},
        storage={"lease_s": LEASE_S},
    )


class Running:
    """`run` of one study."""

    def __init__(self, text: str, url: str, out: Path, *launcher: str, workers: int = WORKERS) -> None:
        """`launcher`: options of `run` that choose it."""
        self.spec, self.out, self._url, self._launcher = parse_study(text), out, url, launcher
        self._workers = workers
        self.storage = open_storage(url, create=True)
        self._file = out.parent / f"{self.spec.name}.toml"
        self._file.write_text(text)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ralr_tune", "run", str(self._file), *self._launcher]
        command += ["--workers", str(self._workers), "--out", str(self.out)]
        with (self.out.parent / "run.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=os.environ | {"RALR_TUNE_STORAGE": self._url},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    @property
    def rows(self) -> list[Row]:
        try:
            return Ledger(self.storage, self.spec.name).rows(curves=False)
        except Exception:  # before `run` has created the tables
            return []

    @property
    def finished_rows(self) -> list[Row]:
        """With their curves."""
        return Ledger(self.storage, self.spec.name).rows()

    @property
    def held(self) -> list[Row]:
        return [row for row in self.rows if row.state == "held"]

    @property
    def pending(self) -> object:
        """The stage that is left; None if the study is finished."""
        rows = self.rows
        return pending_stage(self.spec, rows) if rows else "nothing yet"

    def ended(self) -> bool:
        return self.process.poll() is not None

    def log(self) -> str:
        return (self.out.parent / "run.log").read_text()


@dataclass(frozen=True)
class _Hit:
    """A row that was held when a fault struck."""

    kind: str
    attempt: int
    epoch: int
    when: float


class Faults(Generic[C]):
    """Faults of an engine's cluster at random moments of one study after another, its kinds in rotation.

    A fault comes when a row is held and an epoch was recorded since the last one: on a busy machine, workers that are
    still starting would be hit again and again.
    """

    def __init__(
        self,
        cluster: C,
        kinds: Sequence[Callable[[C, Running, random.Random], bool]],
        pause_s: tuple[float, float],
        after_each: Callable[[], None] = lambda: None,
    ) -> None:
        """`kinds`: each returns whether it found a target. `after_each`: called after every pause, and every fault."""
        self._cluster, self._pause_s, self._after_each = cluster, pause_s, after_each
        self._chance = random.Random(1)
        self._kinds = Rotation(kinds, self._chance)
        self._hit: dict[int, _Hit] = {}
        self._epochs = 0
        self.counted = Counter[str]()
        self.again_s: dict[str, list[float]] = defaultdict(list)
        """By kind: seconds from a fault until a row that lost its worker by it was held again."""

    def strike(self, run: Running) -> None:
        """Faults until there are enough or the study is finished; then waits for its end."""
        end = time.monotonic() + LONG_S * 4
        self._hit.clear()
        self._epochs = 0
        while run.pending is not None:
            assert time.monotonic() < end, f"stuck: {run.log()}"
            if run.ended():
                run.start()
            self._pause(run)
            if self.counted.total() < FAULTS:
                self._inject(run)
            self._after_each()
        until(run.ended, "run ends")

    def _inject(self, run: Running) -> None:
        rows, now = run.rows, time.monotonic()
        held, epochs = [row for row in rows if row.state == "held"], sum(row.epoch for row in rows)
        kind = self._kinds.drawn()
        if not held or epochs == self._epochs or not kind(self._cluster, run, self._chance):
            return
        self._kinds.used()
        self._epochs = epochs
        self.counted[kind.__name__] += 1
        for row in held:
            before = self._hit.get(row.id)
            if before is None or (row.attempt, row.epoch) != (before.attempt, before.epoch):  # it trained since
                self._hit[row.id] = _Hit(kind.__name__, row.attempt, row.epoch, now)

    def _pause(self, run: Running) -> None:
        end = time.monotonic() + self._chance.uniform(*self._pause_s)
        while time.monotonic() < end:
            time.sleep(0.2)
            self._record(run.rows)

    def _record(self, rows: Sequence[Row]) -> None:
        for row in rows:
            hit = self._hit.get(row.id)
            if hit is not None and row.attempt > hit.attempt:
                self.again_s[hit.kind].append(time.monotonic() - hit.when)
            if hit is not None and (row.attempt > hit.attempt or row.state == "done"):
                del self._hit[row.id]

    def table(self) -> str:
        lines = ["", "| fault | times | rows held again | after, min / median / max |", "|---|---|---|---|"]
        for kind, times in sorted(self.counted.items()):
            waits = self.again_s[kind]
            figures = " / ".join(f"{figure(waits):.1f}" for figure in (min, median, max)) + " s" if waits else "-"
            lines.append(f"| {kind} | {times} | {len(waits)} | {figures} |")
        return "\n".join(lines)
