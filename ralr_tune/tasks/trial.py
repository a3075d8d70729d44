"""The contract of a trial: what the search, the confirmation and `train` need from any kind of training."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Literal, Protocol

from ralr_tune.records import EpochRecord
from ralr_tune.tasks.base import Split

TrainingSplit = Literal["train", "train+validation"]
"""The split that a trial trains on."""

TrialStage = Literal["search", "confirm", "test", "train"]
"""What a trial is for; "train" is the final training of a chosen configuration, and any training without a study."""


def evaluated_split(split: TrainingSplit, gap_split: Split | None = "probe") -> Split:
    """The split on which the value of an epoch is measured; `gap_split` is the task's (see tasks.base.Capabilities).

    train+validation holds nothing out: there the value is a training metric, on `gap_split` or, without one, on the
    validation data, which are then part of the training data.
    """
    return "validation" if split == "train" else gap_split or "validation"


class Trial(Protocol):
    """The training of one configuration. Everything random in it is a pure function of (seed, epoch)."""

    curve: list[EpochRecord]
    """The record of every evaluated epoch so far, including those before a resume."""

    @property
    def finished(self) -> bool:
        """Whether all epochs are trained."""

    @property
    def recovered(self) -> str | None:
        """One sentence on the errors that the trial recovered from, including before a resume; None if there were
        none."""

    def epochs(self) -> Generator[EpochRecord, None, None]:
        """Trains the remaining epochs and yields a record after each that is evaluated, the last one always.

        The caller prunes by closing the generator (use `contextlib.closing`: an exception in the caller does not close
        it), and throws Interrupted into it to leave a trial that another process will continue.
        An epoch is saved in the checkpoint before its record is yielded and before it is in `curve`. A process may be
        killed at any moment; a resumed trial continues after the last saved epoch.

        If memory runs out, the epoch is trained again from its start in micro-batches of half the size, down to one
        sample; earlier epochs stay as they are. Raises TrialError of kind "diverged", "oom", "data" or "bug", and
        DiskError if the checkpoint cannot be written: then the previous one stays.
        """

    def train_value(self) -> float | None:
        """The metric on training data without augmentation, on the task's split for the generalisation gap, by default
        the probe; None if the task does not measure the gap."""

    def evaluate(self, split: Split) -> float:
        """The metric on a whole split, in smaller batches if memory runs out.

        Raises TrialError of kind "oom" or "data".
        """

    def save_weights(self, path: Path) -> None:
        """Writes the weights atomically (temporary file, then rename). Raises DiskError."""

    def load_weights(self, path: Path) -> None:
        """Loads what `save_weights` wrote.

        Raises DataError, with the trial unchanged, if the file is missing, damaged or of another network.
        """
