"""A trial that a program trains: the worker starts it, receives its reports, and answers with the study's verdict.

For each epoch: the program renames its checkpoint and reports; the trial keeps the checkpoint and saves the curve; the
caller writes the ledger and judges; the program gets its answer; the checkpoint before it is removed.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ralr_tune.child import weights
from ralr_tune.child.channel import Channel, Flood
from ralr_tune.child.messages import Final, Report
from ralr_tune.child.process import Process, described, environment
from ralr_tune.child.saved import SavedReader, content, encoded, keep, remove
from ralr_tune.errors import Interrupted, TrialError
from ralr_tune.machine.files import write, writing
from ralr_tune.records import EpochRecord
from ralr_tune.tasks.base import Split
from ralr_tune.training.checkpoint import Checkpoints, companion

VERSION = 1
"""Of the file that describes a trial."""
LOG, DESCRIPTION, KEPT = "program.log", "trial.json", "checkpoint-"
"""Names in an attempt's folder: the program's output, the description of its trial, and checkpoints by epoch."""

Stage = Literal["train", "test"]


@dataclass(frozen=True)
class Start:
    """What differs between two starts of one trial's program."""

    stage: Stage
    first_epoch: int
    folder: Path
    checkpoint: Path | None


@dataclass(frozen=True)
class Plan:
    """One trial of a program."""

    identity: str
    command: Callable[[Start], list[str]]
    epochs: int
    description: Mapping[str, Any]
    """What the program gets to read: parameters, seed, split, device, and the schedule by epoch."""
    rates: Sequence[float]
    """The learning rate of each epoch, amplification included."""
    factors: Sequence[float]
    """The amplification factor of each epoch."""
    report_timeout: float | None
    """Seconds without a report after which the program counts as stuck."""
    grace_s: float
    """Seconds between asking it to leave and SIGTERM, and between SIGTERM and SIGKILL."""
    variables: Collection[str] = ()
    """Schedulers' variables that it gets nevertheless."""


class ChildTrial:
    """A Trial (see tasks.trial) of a program."""

    recovered = None

    def __init__(self, plan: Plan, *, checkpoint: Path | None = None, earlier: Sequence[Path] = ()) -> None:
        self._plan = plan
        if checkpoint is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="ralr_tune-")
            checkpoint = Path(self._temporary.name) / "trial.ckpt"
        self._folder = companion(checkpoint).absolute()
        self._checkpoints = Checkpoints(plan.identity, checkpoint, earlier)
        found = self._checkpoints.first(SavedReader(plan.epochs, checkpoint.parent))
        self.curve: list[EpochRecord] = found.curve if found else []
        self._saved = [encoded(record) for record in self.curve]
        self._checkpoint = found.checkpoint if found else None
        self._reported: Path | None = None

    @property
    def finished(self) -> bool:
        return len(self.curve) >= self._plan.epochs

    def epochs(self) -> Generator[EpochRecord, None, None]:
        if self.finished:
            return
        start = Start("train", len(self.curve) + 1, self._folder, self._resumable())
        with _running(self._plan, start) as program:
            while not self.finished:
                report = program.report()
                record, kept = program.record(report), self._keep(report)
                if report.epoch == self._plan.epochs:
                    program.finish()
                saved = [*self._saved, encoded(record)]
                self._checkpoints.save(content(saved, kept))
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
        checkpoint = self._resumable()
        first = 1 if checkpoint is None else self._plan.epochs + 1
        with _running(self._plan, Start("test", first, self._folder, checkpoint)) as program:
            return program.test_value()

    def save_weights(self, path: Path) -> None:
        weights.save(path, self._plan.identity, self._checkpoint)

    def load_weights(self, path: Path) -> None:
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._checkpoint = weights.load(path, self._plan.identity, self._folder)

    def _resumable(self) -> Path | None:
        """The checkpoint in this attempt's own folder: another attempt's may be removed by its own worker."""
        found = self._checkpoint
        if found is not None and found.parent.absolute() != self._folder:
            self._checkpoint = keep(found, self._folder / found.name)
        return None if self._checkpoint is None else self._checkpoint.absolute()

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


@contextmanager
def _running(plan: Plan, start: Start) -> Iterator[_Program]:
    """The started program. On leaving, it and its descendants have ended."""
    description = start.folder / DESCRIPTION
    found = {
        "version": VERSION,
        "stage": start.stage,
        "first_epoch": start.first_epoch,
        "epochs": plan.epochs,
        "folder": str(start.folder),
        "checkpoint": None if start.checkpoint is None else str(start.checkpoint),
        **plan.description,
    }
    write(description, json.dumps(found).encode())
    channel = Channel()
    try:
        process = Process(
            plan.command(start),
            log=start.folder / LOG,
            environment=environment(description, channel.path, plan.variables),
        )
        program = _Program(plan, start, channel, process)
        try:
            channel.watch(process.ended)
            yield program
        except (Interrupted, KeyboardInterrupt):  # the caller must leave
            program.leave("release")
            raise
        except BaseException:  # the caller has left the generator, or the program failed
            program.leave("stop")
            raise
        finally:
            process.end(plan.grace_s, asked=program.asked)
    finally:
        channel.close()


class _Program:
    """A running program and what it has reported."""

    def __init__(self, plan: Plan, start: Start, channel: Channel, process: Process) -> None:
        self._plan, self._start, self._channel, self._process = plan, start, channel, process
        self._next, self._last = start.first_epoch, math.nan
        self._answered = time.perf_counter()
        self.asked = False
        """Whether it was told to leave."""

    def report(self) -> Report:
        """The next epoch. Raises TrialError: "diverged" for a value that is not finite, "bug" if there is none."""
        while True:
            message = self._receive(f"before it reported epoch {self._next}")
            if isinstance(message, Final):
                self._channel.refuse('a test value is allowed only in the stage "test"')
            elif report := self._accepted(message):
                return report

    def record(self, report: Report) -> EpochRecord:
        """As the study records it; the time of an epoch is that between two answers unless the program says it."""
        epoch, now = report.epoch, time.perf_counter()
        return EpochRecord(
            epoch=epoch,
            value=report.value,
            train_loss=report.loss if math.isfinite(report.loss) else math.nan,
            lr=self._plan.rates[epoch - 1],
            factor=self._plan.factors[epoch - 1],
            seconds=now - self._answered if report.seconds is None else report.seconds,
        )

    def leave(self, answer: Literal["stop", "release"]) -> None:
        """Answers the last message, if it was not answered, that the program must end."""
        self.asked = self._channel.answer(answer) or self.asked

    def finish(self) -> None:
        """Lets the program end by itself after its last message. Raises TrialError if it fails."""
        self.go_on()
        while message := self._received("after its last report"):
            if not self._is_repeated(message):
                self._channel.refuse("all epochs are reported")
        code = self._process.wait(None)
        if code:
            raise self._failure(f"{described(code)} after its last report")

    def test_value(self) -> float:
        """The metric on the test split. Raises TrialError."""
        while True:
            message = self._receive("before it reported a test value")
            if isinstance(message, Final):
                self.finish()
                return message.value
            if self._accepted(message):
                self.go_on()

    def _accepted(self, report: Report) -> Report | None:
        """The report if it is of the next epoch; otherwise it is answered here."""
        if self._is_repeated(report):
            return None
        if self._next > self._plan.epochs:
            self._channel.refuse("all epochs are reported")
        elif report.epoch != self._next:
            self._channel.refuse(f"epoch = {report.epoch}: must be {self._next}, the next one")
        elif not math.isfinite(report.value):
            self.leave("stop")
            raise TrialError("diverged", f"the program reported the value {report.value} in epoch {report.epoch}")
        elif problem := self._problem_of(report.checkpoint):
            self._channel.refuse(problem)
        else:
            self._next, self._last = report.epoch + 1, report.value
            return report
        return None

    def _is_repeated(self, message: Report | Final) -> bool:
        """Whether it repeats the last report, as a client does that lost its connection; if so, it is answered."""
        if isinstance(message, Final) or (message.epoch, message.value) != (self._next - 1, self._last):
            return False
        self._channel.answer("continue")
        return True

    def _problem_of(self, checkpoint: str | None) -> str | None:
        if checkpoint is None:
            return None
        path = (self._start.folder / checkpoint).resolve()
        own = self._start.folder.resolve()
        if not path.is_relative_to(own) or path == own or path.name in (LOG, DESCRIPTION):
            return f"checkpoint = {json.dumps(checkpoint)}: must be a file or folder inside of {own}"
        if path.parent == own and path.name.startswith(KEPT):
            return f"checkpoint = {json.dumps(checkpoint)}: names that start with {KEPT} are the worker's; use another"
        if not path.exists():
            return f"checkpoint = {json.dumps(checkpoint)}: no such file; write it under another name and rename it"
        return None

    def _receive(self, when: str) -> Report | Final:
        message = self._received(when)
        if message is None:
            raise self._failure(f"{described(self._process.wait(None) or 0)} {when}")
        return message

    def _received(self, when: str) -> Report | Final | None:
        try:
            return self._channel.receive(self._plan.report_timeout)
        except TimeoutError:
            silent = f"was silent for {self._plan.report_timeout:g} s (task.report_timeout) {when}"
            raise self._failure(silent) from None
        except Flood as flood:
            raise self._failure(f"flooded the channel {when}: {flood}") from None

    def _failure(self, what: str) -> TrialError:
        output = self._process.tail()
        last = next((line.strip() for line in reversed(output) if line.strip()), "it printed nothing")
        error = TrialError("bug", f"the program {what}: {last} (its output: {self._start.folder / LOG})")
        error.add_note("\n".join(["the end of the program's output:", *output]))
        return error

    def go_on(self) -> None:
        """Answers the last message, if it was not answered, that training goes on."""
        self._channel.answer("continue")
        self._answered = time.perf_counter()
