"""From the [task] table of a study file to a task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralr_tune.errors import UsageError
from ralr_tune.kinds.simulated.task import simulated_task
from ralr_tune.logs import warnings_to_log
from ralr_tune.studyfile.metrics import metric_of
from ralr_tune.tasks.base import Task, TorchTask

if TYPE_CHECKING:
    from torch import nn

    from ralr_tune.studyfile import TaskSpec

KINDS = ("classification", "simulated")


def load_task(task: TaskSpec, *, seed: int, device: str, decoded: Path | None = None) -> Task:
    """The task that `task` describes; `seed` is the study's, `device` torch's name ("cpu", "cuda:0").

    `decoded`: folder where decoded images are kept for all processes (see tasks.decoded); None: nowhere.
    Reads the training and validation data, not the test data. The simulated kind needs neither torch nor device. Raises
    DataError or UsageError, naming field, value and what is allowed.
    """
    if task.kind == "simulated":
        return simulated_task(task.data, identity=task_identity(task, seed), metric=metric_of(task.kind, task.metric))
    if task.kind == "classification":
        with warnings_to_log():
            return _classification(task, seed, device, decoded)
    raise UsageError(f"task.kind = {task.kind!r}: allowed: {', '.join(KINDS)}")


def _classification(task: TaskSpec, seed: int, device: str, decoded: Path | None) -> TorchTask:
    from ralr_tune.kinds.classification.sources import open_source
    from ralr_tune.kinds.classification.task import ClassificationTask
    from ralr_tune.models import registry

    options: Mapping[str, Any] = task.model_options or {}

    def build(classes: int, channels: int, size: int) -> nn.Module:
        return registry.build(
            task.model, classes=classes, channels=channels, size=size, options=options, pretrained=task.pretrained
        )

    return ClassificationTask(
        open_source(task.data),
        build=build,
        validation=task.validation,
        seed=seed,
        device=device,
        identity=task_identity(task, seed),
        decoded=decoded,
        metric=metric_of(task.kind, task.metric),
    )


def task_identity(task: TaskSpec, seed: int) -> str:
    """A hash of the data, the network, the study's seed, and the metric if it is not the kind's default."""
    given = asdict(task)
    if task.metric is None:  # checkpoints from before there was a choice stay usable
        del given["metric"]
    text = json.dumps([given, seed], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
