"""What kinds whose trials are programs have in common: they differ in how a program is started."""

from __future__ import annotations

import glob
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ralr_tune.child.plan import Plan, Schedule
from ralr_tune.child.program import Programs
from ralr_tune.child.section import ProgramSection
from ralr_tune.child.trial import ChildTrial
from ralr_tune.metric import Metric
from ralr_tune.records import SourceFile
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import Configuration, StudySpec
from ralr_tune.studyfile.code import digests
from ralr_tune.studyfile.contradictions import Contradiction
from ralr_tune.studyfile.kind import StagedKind
from ralr_tune.studyfile.problems import KeyPath, shown
from ralr_tune.studyfile.values import Choice
from ralr_tune.tasks.base import Task
from ralr_tune.tasks.trial import TrainingSplit, TrialStage

_MANNERS = ("report_timeout", "grace", "reuse", "epoch_metrics")
"""Keys that do not change what a trial is."""


_MAX_READ = 10_000_000
"""Bytes of a source file that are searched."""


@dataclass(frozen=True)
class ProgramTask:
    """A program with its own parameters fixed."""

    section: Any
    metric: Metric
    device: str
    identity: str
    shared: Any = None
    """What the kind shares between the tasks of one study (see `ProgramKind.share`)."""


class ProgramKind(StagedKind):
    """A kind whose trials are programs (see child.trial). Its worker does not import torch."""

    metrics: Mapping[str, Metric] = {}
    section: type[ProgramSection]
    changes = {(key,): (True, "how to treat the program; new trials use it") for key in _MANNERS}

    @abstractmethod
    def programs(self, task: ProgramTask, values: Mapping[str, Any]) -> Programs:
        """How the program of a trial is started; `values`: everything that it gets, by name."""

    def share(self, section: Any) -> Any:
        """What all tasks of one study share in this process."""
        return None

    def metrics_of(self, section: ProgramSection) -> Mapping[str, Metric]:
        return {section.metric.name: section.metric.metric()}

    def epoch_metrics(self, section: ProgramSection, metric: Metric) -> Mapping[str, Metric]:
        return {name: Metric(name, direction) for name, direction in section.epoch_metrics.items()}

    def load(
        self,
        section: ProgramSection,
        *,
        metric: Metric,
        seed: int,
        device: str,
        cache: Path | None = None,
        like: Task | None = None,
    ) -> ProgramTask:
        shared = like.shared if isinstance(like, ProgramTask) else self.share(section)
        return ProgramTask(section, metric, device, self.identity(section, seed=seed, metric=metric), shared)

    def trial_in_stage(
        self,
        task: ProgramTask,
        configuration: Configuration,
        *,
        stage: TrialStage,
        seed: int,
        checkpoint: Path | None = None,
        earlier: Sequence[Path] = (),
        split: TrainingSplit = "train",
    ) -> ChildTrial:
        values = values_of(task.section.params, configuration, seed=seed, device=task.device, split=split)
        plan = replace(
            plan_of(configuration, values, stage, seed=seed, of=task.identity),
            report_timeout=task.section.report_timeout,
            grace_s=task.section.grace,
            epoch_metrics=tuple(task.section.epoch_metrics),
        )
        programs = self.programs(task, {**values["params"], **values, "epochs": plan.epochs})
        return ChildTrial(plan, programs, checkpoint=checkpoint, earlier=earlier)

    def seconds_per_epoch(self, task: ProgramTask, configuration: Configuration) -> None:
        """Only the program's own trials show it."""
        return

    def identified(self, section: BaseModel) -> dict[str, Any]:
        return {key: value for key, value in super().identified(section).items() if key not in _MANNERS}

    def missing(self, section: ProgramSection) -> Iterator[Contradiction]:
        found = {pattern for pattern, _ in source_paths(section)}
        for index, pattern in enumerate(section.patterns()):
            if pattern not in found:
                line = f"task.files[{index}] = {shown(pattern)}: no such file (relative to {Path.cwd()})"
                yield Contradiction(line, (("task", "files"),))

    def source_files(self, section: ProgramSection) -> Iterator[SourceFile]:
        for _, path in source_paths(section):
            try:
                yield SourceFile("task.files", str(path), digests(path.read_bytes()))
            except OSError:
                continue


def values_of(
    own: Mapping[str, Any], configuration: Configuration, *, seed: int, device: str, split: TrainingSplit
) -> dict[str, Any]:
    """What the program gets besides the schedule and what differs between two starts; `own`: its own parameters.

    The program's seed has 32 bits: numpy.random.seed, and with it the frameworks' own functions, refuse longer ones.
    """
    training = configuration.training
    shared = {key: value for key, value in training.model_dump().items() if key not in ("options", "epochs")}
    given = {key: value for key, value in shared.items() if value not in (None, "auto")}
    return {"params": {**given, **training.options, **own}, "seed": seed % 2**32, "device": device, "split": split}


def plan_of(
    configuration: Configuration, values: Mapping[str, Any], stage: TrialStage, *, seed: int, of: str = ""
) -> Plan:
    """The trial of one configuration with the `values_of` it; `seed`: all of its bits; `of`: the task's identity."""
    return Plan(
        identity=f"{of}|{configuration.identity(seed)}|{values['split']}",
        epochs=configuration.training.epochs,
        stage=stage,
        description=values,
        schedule=lambda steps: _schedule(configuration, steps, seed),
        by_step=changes_by_step(configuration),
    )


def _schedule(configuration: Configuration, steps: int, seed: int) -> Schedule:
    rate = configuration.learning_rate(steps, seed=derive_seed("amplify", seed))
    rates, factors = rate.trace(), rate.factor_trace()
    return Schedule(rate.base_trace().tolist(), factors.tolist(), rates.tolist())


def changes_by_step(configuration: Configuration) -> bool:
    """Whether the rate of a configuration changes within an epoch."""
    perturbation = configuration.perturbation()
    by_curve = configuration.schedule.granularity == "step" and configuration.schedule.name != "constant"
    return by_curve or (perturbation is not None and perturbation.granularity == "step")


def source_paths(section: ProgramSection) -> Iterator[tuple[str, Path]]:
    """The files of `task.files`, with the pattern that found each, in a fixed order."""
    for pattern in section.patterns():
        for name in sorted(glob.glob(pattern, recursive=True)):
            if Path(name).is_file():
                yield pattern, Path(name)


def content_of(path: Path) -> bytes:
    """What is searched of a source file, which may be anything; nothing if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_READ)
    except OSError:
        return b""


def values_by_step(spec: StudySpec, arm: str) -> Iterator[KeyPath]:
    """The keys of an arm that may make the rate change within an epoch."""
    section = spec.arms[arm]
    tables: dict[KeyPath, Any] = {("arms", arm, "amplify"): section.amplify, ("arms", arm, "noise"): section.noise}
    tables[("arms", arm, "schedule") if section.schedule else ("schedule",)] = spec.schedule(arm)
    for path, table in tables.items():
        granularity = None if table is None else table.granularity
        if "step" in (granularity.choices if isinstance(granularity, Choice) else (granularity,)):
            yield (*path, "granularity")
