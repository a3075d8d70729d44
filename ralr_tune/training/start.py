"""Starting a trial of a torch task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ralr_tune.logs import warnings_to_log
from ralr_tune.tasks.base import TorchTask
from ralr_tune.tasks.trial import TrainingSplit
from ralr_tune.training.loop import TorchTrial

if TYPE_CHECKING:
    from ralr_tune.studyfile import Configuration


def start(
    task: TorchTask,
    configuration: Configuration,
    *,
    seed: int,
    checkpoint: Path | None = None,
    earlier: Sequence[Path] = (),
    split: TrainingSplit = "train",
) -> TorchTrial:
    """See `studyfile.kind.Kind.trial`."""
    with warnings_to_log():
        return TorchTrial(task, configuration, seed=seed, checkpoint=checkpoint, earlier=earlier, split=split)
