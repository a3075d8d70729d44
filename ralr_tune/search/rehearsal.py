"""A rehearsal: what a study relies on and no check can read in the code, measured on a few epochs before it runs.

Each item trains one or two epochs of one configuration, in the middle of the space, in a folder of its own. The study
and its database are not touched; the test value is requested, and neither shown nor kept.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from ralr_tune.errors import Interrupted, TrialError
from ralr_tune.machine.files import write
from ralr_tune.records import EpochRecord
from ralr_tune.search.design import unit_params
from ralr_tune.search.tasks import Tasks
from ralr_tune.studyfile import Configuration, StudySpec
from ralr_tune.studyfile.code import source_files
from ralr_tune.studyfile.configuration import AmplifyConfig, ScheduleConfig
from ralr_tune.tasks.trial import Trial

FILE = "rehearsal.json"
"""In the out folder: what was found, for the report."""

EPOCHS = 2
SEEDS = (1, 2)
AMPLIFIED = 2.0
"""The factor of the amplified item; it replaces the schedule's own."""
OTHER_RATE = 0.5
"""The share of the base rate with which the value must differ."""

Level = Literal["good", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One item, measured."""

    item: str
    """A few words, the same in every rehearsal."""
    text: str
    """What was measured, as one sentence without a full stop."""
    level: Level = "good"
    """"wrong": the study's answer would not hold; "note": it costs something."""


@dataclass(frozen=True)
class Rehearsed:
    """What was trained in one item."""

    curve: tuple[EpochRecord, ...]
    trial: Trial

    @property
    def values(self) -> list[tuple[float, str]]:
        """Value and training loss of each epoch, the latter as text: it may be NaN."""
        return [(each.value, repr(each.train_loss)) for each in self.curve]


class Rehearsal:
    """Trains the items in turn: iterate over `findings`."""

    def __init__(self, spec: StudySpec, *, device: str, folder: Path) -> None:
        self._spec, self._folder = spec, folder
        arm = next(iter(spec.arms))
        self._configuration = shortened(spec.configuration(arm, unit_params(spec.space(arm), 0.5)))
        self._task = Tasks(spec, device=device).of(self._configuration.task)
        self._unit = spec.metric.format
        self._number = 0

    def findings(self) -> Iterator[Finding]:
        """Each item as soon as it is measured; the first failure of the code is the last one."""
        try:
            yield from self._findings()
        except TrialError as error:
            yield Finding("trains", str(error), "wrong")

    def _findings(self) -> Iterator[Finding]:
        first = self._trained(self._configuration, SEEDS[0])
        yield self._speed(first)
        yield self._test(first)
        yield from self._stopped_with_another_seed(first)
        yield from self._repeated(first)
        yield self._resumed(first)
        yield self._with_another_rate(first)
        yield self._amplified(first)

    # ------------------------------------------------------------ the items

    def _speed(self, first: Rehearsed) -> Finding:
        seconds = [each.seconds for each in first.curve]
        return Finding("an epoch takes", f"{fmean(seconds[1:] or seconds):.2g} s")

    def _test(self, first: Rehearsed) -> Finding:
        value = first.trial.evaluate("test")
        if math.isnan(value):
            return Finding("test value", "came, but is not a number", "wrong")
        return Finding("test value", "came in the test stage, and only there")

    def _stopped_with_another_seed(self, first: Rehearsed) -> Iterator[Finding]:
        trial = self._trial(self._configuration, SEEDS[1])
        with closing(trial.epochs()) as epochs:
            record = next(epochs)
            began = time.monotonic()
        seconds = time.monotonic() - began
        if getattr(trial, "obeyed", True):
            yield Finding("stop", f"obeyed within {seconds:.1f} s")
        else:
            yield Finding("stop", f"not obeyed: the program had to be ended after {seconds:.1f} s", "note")
        if Rehearsed((record,), trial).values == first.values[:1]:
            yield Finding("another seed", "gives the same value: nothing random follows from the seed", "wrong")
        else:
            yield Finding("another seed", "changes the value")

    def _repeated(self, first: Rehearsed) -> Iterator[Finding]:
        again = self._trained(self._configuration, SEEDS[0])
        if again.values == first.values:
            yield Finding("the same seed", "gives the same values")
            return
        _kill(again.trial)
        fresh = self._trained(self._configuration, SEEDS[0])
        if fresh.values == first.values:
            yield Finding(
                "the same seed",
                f"gives other values in a later trial of one process ({self._off(again, first)}), the same ones in a "
                "new process; set reuse = false in [task]",
                "wrong",
            )
        else:
            yield Finding("the same seed", f"does not give the same values: {self._off(fresh, first)}", "note")

    def _resumed(self, whole: Rehearsed) -> Finding:
        killed = self._trial(self._configuration, SEEDS[0])
        epochs = killed.epochs()
        next(epochs)
        _kill(killed)
        with suppress(Interrupted, StopIteration, TrialError):
            epochs.throw(Interrupted("the rehearsal kills this trial"))
        trial = self._trial(self._configuration, SEEDS[0], earlier=[self._path(self._number)])
        if not trial.curve:
            return Finding(
                "resume",
                "not possible, since no checkpoint is reported: an interrupted trial starts again from its first epoch",
                "note",
            )
        with closing(trial.epochs()) as rest:
            for _ in rest:
                pass
        resumed = Rehearsed(tuple(trial.curve), trial)
        if resumed.values == whole.values:
            return Finding("resume", "exact: 1 epoch, a kill and 1 epoch equal 2 epochs")
        return Finding("resume", f"not exact after a kill: {self._off(resumed, whole)}", "note")

    def _with_another_rate(self, first: Rehearsed) -> Finding:
        lower = self._configuration.training.lr * OTHER_RATE
        training = self._configuration.training.model_copy(update={"lr": lower})
        other = self._trained(self._configuration.model_copy(update={"training": training}), SEEDS[0])
        if other.values == first.values:
            return Finding("another base rate", "gives the same values: lr is not used", "wrong")
        return Finding("another base rate", "changes the value")

    def _amplified(self, first: Rehearsed) -> Finding:
        amplify = AmplifyConfig(probability=1.0, lower=AMPLIFIED, width=0.0, window=(0.0, 1.0))
        plain = self._configuration.model_copy(update={"noise": None})
        other = self._trained(plain.with_amplification(amplify), SEEDS[0])
        if other.values == first.values:
            return Finding("amplification", "gives the same values: the schedule is not applied", "wrong")
        return Finding("amplification", "changes the value")

    # ------------------------------------------------------------ training

    def _trained(self, configuration: Configuration, seed: int) -> Rehearsed:
        trial = self._trial(configuration, seed)
        with closing(trial.epochs()) as epochs:
            return Rehearsed(tuple(epochs), trial)

    def _trial(self, configuration: Configuration, seed: int, earlier: list[Path] | None = None) -> Trial:
        self._number += 1
        return self._spec.kind.trial_in_stage(
            self._task,
            configuration,
            stage="search",
            seed=seed,
            checkpoint=self._path(self._number),
            earlier=earlier or [],
        )

    def _path(self, number: int) -> Path:
        return self._folder / f"trial{number}.ckpt"

    def _off(self, one: Rehearsed, other: Rehearsed) -> str:
        """How far two trainings of the same configuration and seed are apart at their ends."""
        return f"the last value differs by {self._unit.size(abs(one.curve[-1].value - other.curve[-1].value), 2)}"


def _kill(trial: Trial) -> None:
    """Kills the process that trains, if it is not this one: then the trial is only left."""
    kill = getattr(trial, "kill", None)
    if kill is not None:
        kill()


def shortened(configuration: Configuration) -> Configuration:
    """The same with EPOCHS epochs; a schedule that does not fit into them becomes constant."""
    training = configuration.training.model_copy(update={"epochs": EPOCHS})
    short = configuration.model_copy(update={"training": training})
    try:
        short.curve()
    except ValueError:
        return short.model_copy(update={"schedule": ScheduleConfig()})
    return short


# ---------------------------------------------------------------- for the report


@dataclass(frozen=True)
class Stored:
    """A rehearsal in the out folder."""

    findings: tuple[Finding, ...]
    day: str
    code: str
    """Of the code that was rehearsed."""


def store(path: Path, spec: StudySpec, findings: list[Finding], day: str) -> None:
    """Writes a rehearsal for the report. Raises DiskError."""
    stored = Stored(tuple(findings), day, code_of(spec))
    write(path, (json.dumps(asdict(stored), indent=1) + "\n").encode())


def load(path: Path) -> Stored | None:
    """A stored rehearsal; None if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Stored(tuple(Finding(**each) for each in found["findings"]), found["day"], found["code"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def code_of(spec: StudySpec) -> str:
    """What identifies the code of a study: another state of it needs another rehearsal."""
    return json.dumps([[file.name, *file.digests[:1]] for file in source_files(spec)])
