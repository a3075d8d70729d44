"""A trial that a program trains: the worker starts it, receives its reports, and answers with the study's verdict.

For each epoch: the program renames its checkpoint and reports; the trial keeps the checkpoint and saves the curve; the
caller writes the ledger and judges; the program gets its answer; the checkpoint before it is removed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from ralr_tune.child import weights
from ralr_tune.child.messages import Report
from ralr_tune.child.plan import KEPT, LOG, Plan, Start
from ralr_tune.child.program import Program, Programs
from ralr_tune.child.saved import Saved, SavedReader, content, encoded, keep, remove
from ralr_tune.errors import DiskError, TrialError
from ralr_tune.machine.files import writing
from ralr_tune.records import EpochRecord, MetricSeries
from ralr_tune.tasks.base import Split
from ralr_tune.tasks.trial import TrialStage
from ralr_tune.training.checkpoint import Checkpoints, companion


class ChildTrial:
    """A Trial (see tasks.trial) of a program."""

    recovered = None

    def __init__(
        self, plan: Plan, programs: Programs, *, checkpoint: Path | None = None, earlier: Sequence[Path] = ()
    ) -> None:
        self._programs = programs
        if checkpoint is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="ralr_tune-")
            checkpoint = Path(self._temporary.name) / "trial.ckpt"
        self._folder = companion(checkpoint).absolute()
        self._checkpoints = Checkpoints(plan.identity, checkpoint, earlier)
        found = self._restored(SavedReader(plan.epochs, checkpoint.parent))
        self._plan = replace(plan, metrics=found.metrics) if found else plan
        self.curve: list[EpochRecord] = found.curve if found else []
        self.lost_s = found.lost_s if found else 0.0
        """Seconds of epochs that had to be trained again, because the program had reported no checkpoint."""
        self._saved = [encoded(record) for record in self.curve]
        self._checkpoint = found.checkpoint if found else None
        self._reported: Path | None = None
        self._program: Program | None = None

    @property
    def obeyed(self) -> bool:
        """False if the program was told to leave, and had to be ended."""
        return self._program is None or self._program.obeyed

    def kill(self) -> None:
        """Kills the program of the last start."""
        if self._program is not None:
            self._program.kill()

    @property
    def kept(self) -> Path | None:
        """The program's checkpoint to which the checkpoint file refers; None if it has reported none."""
        return self._checkpoint

    @property
    def log(self) -> Path:
        """What the program prints."""
        return self._folder / LOG

    @property
    def metrics(self) -> list[MetricSeries]:
        """What the program reported besides the study's metric."""
        return self._plan.metrics.series()

    @property
    def finished(self) -> bool:
        return len(self.curve) >= self._plan.epochs

    def epochs(self) -> Generator[EpochRecord, None, None]:
        if self.finished:
            return
        with self._programs.running(self._plan, self._start(self._plan.stage, len(self.curve) + 1)) as program:
            self._program = program
            while not self.finished:
                report = program.report()
                record, kept = program.record(report), self._keep(report)
                if report.epoch == self._plan.epochs:
                    program.finish()
                saved = [*self._saved, encoded(record)]
                self._checkpoints.save(content(saved, kept, self._plan.metrics, self.lost_s))
                self._saved = saved
                self.curve.append(record)
                self._replace(kept, report.checkpoint)
                yield record
                program.go_on()

    def train_value(self) -> None:
        """The program reports no metric on its training data."""
        return

    def evaluate(self, split: Split) -> float:
        """The metric on the test split: the program resumes from its last checkpoint; without one it trains again."""
        if split != "test":
            raise TrialError("bug", f"split {split}: a program reports its epochs, and the test split; nothing else")
        first = 1 if self._checkpoint is None else self._plan.epochs + 1
        with self._programs.running(self._plan, self._start("test", first)) as program:
            return program.test_value()

    def save_weights(self, path: Path) -> None:
        weights.save(path, self._plan.identity, self._checkpoint)

    def load_weights(self, path: Path) -> None:
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._checkpoint = weights.load(path, self._plan.identity, self._folder)

    def _restored(self, reader: SavedReader) -> Saved | None:
        """What to resume from, with its checkpoint in this attempt's own folder.

        The worker of an earlier attempt may still run, and removes its own checkpoint at any moment: then it has saved
        a later one.
        """
        while (found := self._checkpoints.first(reader)) is not None:
            if found.checkpoint is None or found.checkpoint.parent.absolute() == self._folder:
                return found
            try:
                return replace(found, checkpoint=keep(found.checkpoint, self._folder / found.checkpoint.name))
            except DiskError:
                if found.checkpoint.exists():
                    raise
        return None

    def _start(self, stage: TrialStage, first_epoch: int) -> Start:
        return Start(stage, first_epoch, self._folder, self._checkpoint and self._checkpoint.absolute())

    def _keep(self, report: Report) -> Path | None:
        if report.checkpoint is None:
            return None
        reported = self._folder / report.checkpoint
        return keep(reported, self._folder / f"{KEPT}{report.epoch}{reported.suffix}")

    def _replace(self, kept: Path | None, reported: str | None) -> None:
        """Removes the checkpoint before this one, under the worker's name and the program's."""
        if self._checkpoint is not None and self._checkpoint != kept:
            remove(self._checkpoint)
        own = None if reported is None else self._folder / reported
        if self._reported is not None and self._reported != own:
            remove(self._reported)
        self._checkpoint, self._reported = kept, own
