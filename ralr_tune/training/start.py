"""The door to training: one trial of any kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ralr_tune.kinds.simulated.task import SimulatedTask
from ralr_tune.kinds.simulated.trial import SimulatedTrial
from ralr_tune.logs import warnings_to_log
from ralr_tune.tasks.base import Task, TorchTask
from ralr_tune.training.base import TrainingSplit, Trial

if TYPE_CHECKING:
    from ralr_tune.studyfile import Configuration


def start(
    task: Task,
    configuration: Configuration,
    *,
    seed: int,
    checkpoint: Path | None = None,
    earlier: Sequence[Path] = (),
    split: TrainingSplit = "train",
) -> Trial:
    """A trial of `configuration` that has trained nothing yet, or what the first usable of its checkpoints holds.

    `checkpoint` is the one file that this trial writes; `earlier` are those of earlier attempts, the one to prefer
    first. A checkpoint of another task, configuration, seed or split, or one that is damaged, is passed over with a
    warning in the log. Raises UsageError when network, optimizer or options do not fit, TrialError("oom") when the
    network has no room.
    """
    if isinstance(task, SimulatedTask):
        return SimulatedTrial(task, configuration, seed=seed, checkpoint=checkpoint, earlier=earlier, split=split)
    from ralr_tune.training.loop import TorchTrial

    with warnings_to_log():
        return TorchTrial(
            cast(TorchTask, task), configuration, seed=seed, checkpoint=checkpoint, earlier=earlier, split=split
        )
