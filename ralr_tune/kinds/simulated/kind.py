"""The simulated kind of task. Its worker does not import torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ralr_tune.errors import UsageError
from ralr_tune.kinds.simulated.metrics import LOSS, METRICS
from ralr_tune.kinds.simulated.section import SimulatedSection, SimulatedTraining
from ralr_tune.kinds.simulated.task import SimulatedTask
from ralr_tune.kinds.simulated.trial import SimulatedTrial
from ralr_tune.metric import Metric
from ralr_tune.script.text import OTHER_FORMATS
from ralr_tune.studyfile import Configuration, StudySpec
from ralr_tune.studyfile.contradictions import Contradiction, corners, shared_paths
from ralr_tune.studyfile.exported import Exported
from ralr_tune.studyfile.kind import Kind, TaskSummary
from ralr_tune.studyfile.problems import dotted, shown
from ralr_tune.studyfile.values import Range
from ralr_tune.tasks.base import Task
from ralr_tune.tasks.trial import TrainingSplit


class SimulatedKind(Kind):
    """Curves from a formula with known effects (see task.py)."""

    name = "simulated"
    metrics = METRICS
    section = SimulatedSection
    training = SimulatedTraining

    def epoch_metrics(self, section: SimulatedSection, metric: Metric) -> Mapping[str, Metric]:
        return {LOSS.name: LOSS} if section.data.loss else {}

    def load(
        self,
        section: SimulatedSection,
        *,
        metric: Metric,
        seed: int,
        device: str,
        cache: Path | None = None,
        like: Task | None = None,
    ) -> SimulatedTask:
        return SimulatedTask(
            **dict(section.data), identity=self.identity(section, seed=seed, metric=metric), metric=metric
        )

    def trial(
        self,
        task: SimulatedTask,
        configuration: Configuration,
        *,
        seed: int,
        checkpoint: Path | None = None,
        earlier: Sequence[Path] = (),
        split: TrainingSplit = "train",
    ) -> SimulatedTrial:
        return SimulatedTrial(task, configuration, seed=seed, checkpoint=checkpoint, earlier=earlier, split=split)

    def seconds_per_epoch(self, task: SimulatedTask, configuration: Configuration) -> float:
        return task.seconds_per_epoch

    def identified(self, section: BaseModel) -> dict[str, Any]:
        """Includes the fields that earlier releases hashed, so that their checkpoints stay usable."""
        earlier = {"model": "", "model_options": None, "pretrained": False, "validation": 0.2}
        return super().identified(section) | earlier

    def contradictions(self, spec: StudySpec) -> Iterator[Contradiction]:
        """An effect must use the scale on which its parameter is searched, and all values must fit a log scale."""
        assert isinstance(spec.task, SimulatedSection)
        for name, effect in spec.task.data.effects.items():
            where = f"{dotted(('task', 'data', 'effects', name))}.log = {shown(effect.log)}"
            paths = (("task", "data"), ("arms",), *shared_paths(name))
            for arm in spec.arms:
                space = spec.space(arm)
                domain = space.get(name)
                numbers = [spec.configuration(arm, corner).number(name) for corner in corners(space, (name,))]
                if isinstance(domain, Range) and domain.log != effect.log:
                    line = f"{where}: arm {arm} searches it with log = {shown(domain.log)}; use the same"
                    yield Contradiction(line, paths)
                elif effect.log and any(number is not None and number <= 0 for number in numbers):
                    yield Contradiction(f"{where}: {name} is 0 in arm {arm}; must be above 0", paths)

    def script(self, exported: Exported) -> str:
        raise UsageError(f"task.kind = 'simulated': trains nothing, so it has no script; {OTHER_FORMATS}")

    def examine(self, section: SimulatedSection) -> TaskSummary:
        return TaskSummary("the simulated task needs no data")


KIND = SimulatedKind()
