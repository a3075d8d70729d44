"""The contract of a trial: what the search, confirm and `train` see of any kind of training."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Literal, Protocol

from ralr_tune.records import EpochRecord
from ralr_tune.tasks.base import Split

TrainingSplit = Literal["train", "train+validation"]
"""What is trained on."""

WATCHED: dict[TrainingSplit, Split] = {"train": "validation", "train+validation": "probe"}
"""Where the value of an epoch comes from. Nothing is held out of train+validation: there it is a training accuracy."""


class Trial(Protocol):
    """One configuration in training. Everything random in it is a pure function of (seed, epoch)."""

    curve: list[EpochRecord]
    """Every epoch so far, those before a resume included."""

    def epochs(self) -> Generator[EpochRecord, None, None]:
        """Trains the epochs that are left, one for each record.

        The caller prunes by leaving (`contextlib.closing`: a generator that an exception leaves behind is not closed).
        The checkpoint is written before the record is yielded. Raises TrialError of kind "diverged", "oom", "data" or
        "bug".
        """

    def train_value(self) -> float:
        """The metric on the probe: a fixed part of train, without augmentation."""

    def evaluate(self, split: Split) -> float:
        """The metric on a whole split. Raises TrialError of kind "oom" or "data"."""

    def save_weights(self, path: Path) -> None:
        """Writes what was learned, beside and renamed."""

    def load_weights(self, path: Path) -> None:
        """Takes what `save_weights` wrote. Raises DataError when the file is missing, damaged or of another network."""
