"""The command kind of task. Its worker does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ralr_tune.child.trial import ChildTrial, Plan, Start
from ralr_tune.kinds.command import checks
from ralr_tune.kinds.command.placeholders import command_line
from ralr_tune.kinds.command.section import CommandSection
from ralr_tune.metric import Metric
from ralr_tune.records import SourceFile
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import Configuration, StudySpec
from ralr_tune.studyfile.code import digests
from ralr_tune.studyfile.contradictions import Contradiction, Problem
from ralr_tune.studyfile.imports import Import
from ralr_tune.studyfile.kind import Kind, TaskSummary
from ralr_tune.tasks.base import Task
from ralr_tune.tasks.trial import TrainingSplit

_MANNERS = ("report_timeout", "grace")
"""Keys that do not change what a trial is."""


@dataclass(frozen=True)
class CommandTask:
    """A program with its own parameters fixed."""

    section: CommandSection
    metric: Metric
    device: str
    identity: str


class CommandKind(Kind):
    """Any program, which the worker starts for each trial (see child.trial)."""

    name = "command"
    metrics: Mapping[str, Metric] = {}
    section = CommandSection
    substitutes = {
        "command": ["true"],
        "files": ["*"],
        "metric": {"name": "value", "direction": "maximize"},
    }
    changes = {(key,): (True, "how long to wait for the program; new trials use it") for key in _MANNERS}

    def metrics_of(self, section: CommandSection) -> Mapping[str, Metric]:
        return {section.metric.name: section.metric.metric()}

    def load(
        self,
        section: CommandSection,
        *,
        metric: Metric,
        seed: int,
        device: str,
        cache: Path | None = None,
        like: Task | None = None,
    ) -> CommandTask:
        return CommandTask(section, metric, device, self.identity(section, seed=seed, metric=metric))

    def trial(
        self,
        task: CommandTask,
        configuration: Configuration,
        *,
        seed: int,
        checkpoint: Path | None = None,
        earlier: Sequence[Path] = (),
        split: TrainingSplit = "train",
    ) -> ChildTrial:
        plan = _plan(task, configuration, seed, split)
        return ChildTrial(plan, checkpoint=checkpoint, earlier=earlier)

    def seconds_per_epoch(self, task: CommandTask, configuration: Configuration) -> None:
        """Only the program's own trials show it."""
        return

    def identified(self, section: BaseModel) -> dict[str, Any]:
        return {key: value for key, value in super().identified(section).items() if key not in _MANNERS}

    def imports(self, section: CommandSection) -> tuple[Import, ...]:
        return (Import("task.command", " ".join(section.command), is_program=True),)

    def contradictions(self, spec: StudySpec) -> Iterator[Contradiction]:
        yield from checks.contradictions(spec)

    def missing(self, section: CommandSection) -> Iterator[Contradiction]:
        yield from checks.missing(section)

    def problems(self, spec: StudySpec, *, imports: bool = True, sample: int) -> Iterable[Problem]:
        return checks.unread_schedule(spec)

    def source_files(self, section: CommandSection) -> Iterator[SourceFile]:
        for _, path in checks.source_paths(section):
            try:
                yield SourceFile("task.files", str(path), digests(path.read_bytes()))
            except OSError:
                continue

    def examine(self, section: CommandSection) -> TaskSummary:
        return TaskSummary(f"the program {section.command[0]} reads its own data")


def _plan(task: CommandTask, configuration: Configuration, seed: int, split: TrainingSplit) -> Plan:
    section, training = task.section, configuration.training
    rate = configuration.learning_rate(1, seed=derive_seed("amplify", seed))  # one rate an epoch
    curve, epochs = configuration.curve(), training.epochs
    factors = rate.factor_trace()[:, 0].tolist()
    shared = {key: value for key, value in dict(training).items() if key not in ("options", "epochs")}
    given = {key: value for key, value in shared.items() if value not in (None, "auto")}
    params = {**given, **training.options, **section.params}
    values = {"seed": seed, "device": task.device, "split": split}

    def command(start: Start) -> list[str]:
        words = [*section.command, *(section.resume if start.checkpoint else ())]
        words += section.test if start.stage == "test" else ()
        of_start = {
            **vars(start),
            "folder": str(start.folder),
            "checkpoint": start.checkpoint and str(start.checkpoint),
        }
        return command_line(words, {**params, **values, **of_start, "epochs": epochs}, in_shell=section.shell)

    return Plan(
        identity=f"{task.identity}|{configuration.identity(seed)}|{split}",
        command=command,
        epochs=epochs,
        description={
            **values,
            "params": params,
            "base": [float(curve.factor(float(epoch))) for epoch in range(epochs)],
            "factors": factors,
        },
        rates=rate.trace()[:, 0].tolist(),
        factors=factors,
        report_timeout=section.report_timeout,
        grace_s=section.grace,
        variables=section.variables,
    )


KIND = CommandKind()
