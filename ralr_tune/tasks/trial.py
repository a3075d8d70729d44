"""The contract of a trial: what the search, confirm and `train` see of any kind of training."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Literal, Protocol

from ralr_tune.records import EpochRecord
from ralr_tune.tasks.base import Split

TrainingSplit = Literal["train", "train+validation"]
"""What is trained on."""


def watched(split: TrainingSplit, gap_split: Split | None = "probe") -> Split:
    """Where the value of an epoch comes from, with the task's own `gap_split` (see tasks.base.Capabilities).

    Nothing is held out of train+validation: there it is a training metric, on the gap's split where there is one, else
    on the validation data that are trained on.
    """
    return "validation" if split == "train" else gap_split or "validation"


class Trial(Protocol):
    """One configuration in training. Everything random in it is a pure function of (seed, epoch)."""

    curve: list[EpochRecord]
    """Every epoch so far, those before a resume included."""

    @property
    def finished(self) -> bool:
        """Whether no epoch is left to train."""

    @property
    def recovered(self) -> str | None:
        """What went wrong so far and was recovered from, before a resume too, in a sentence; None where nothing was."""

    def epochs(self) -> Generator[EpochRecord, None, None]:
        """Trains the epochs that are left, one for each record.

        The caller prunes by leaving (`contextlib.closing`: a generator that an exception leaves behind is not closed).
        An epoch is in the checkpoint before its record is yielded and before it is in `curve`; a process may be killed
        at any moment, and whoever resumes goes on from the last epoch that was saved.

        Where memory runs out, the epoch is trained again from its start in micro-batches of half the size, down to one
        sample; the epochs before it stay as they were. Raises TrialError of kind "diverged", "oom", "data" or "bug",
        and DiskError when the checkpoint cannot be written: the former one stays.
        """

    def train_value(self) -> float | None:
        """The metric on training data without augmentation: on the split that the task measures the generalisation gap
        on, by default the probe; None when it measures none."""

    def evaluate(self, split: Split) -> float:
        """The metric on a whole split, in smaller batches where memory runs out.

        Raises TrialError of kind "oom" or "data".
        """

    def save_weights(self, path: Path) -> None:
        """Writes what was learned, beside and renamed. Raises DiskError."""

    def load_weights(self, path: Path) -> None:
        """Takes what `save_weights` wrote.

        Raises DataError, the trial as it was, when the file is missing, damaged or of another network.
        """
