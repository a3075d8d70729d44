"""How a worker trains several trials at once: the number of slots, and one epoch of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from ralr_tune.errors import UsageError
from ralr_tune.tasks.trial import Trial

Slots = int | Literal["auto"]


def parse_slots(text: str) -> Slots:
    """The value of `--slots`. Raises UsageError."""
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdigit() and int(text) >= 1:
        return int(text)
    raise UsageError(f"--slots {text}: allowed: auto, or a number of trials, at least 1")


class SlotTrainer(Protocol):
    """Trains the next epoch of trials that can be fused, ahead of time. Each other trial trains its epoch by itself
    when its next record is requested."""

    @property
    def slots(self) -> int:
        """How many trials the worker should hold at once."""

    def settle(self, trial: Trial, waiting: Callable[[], int]) -> None:
        """With slots "auto", once: chooses the fastest number for trials like this one, given the number of waiting
        rows."""

    def train(self, trials: Sequence[Trial]) -> None:
        """Trains the next epoch of the trials; a trial for which that fails stays unchanged."""


class SerialTrainer:
    """A SlotTrainer with one slot: each trial trains by itself."""

    slots = 1

    def settle(self, trial: Trial, waiting: Callable[[], int]) -> None:
        pass

    def train(self, trials: Sequence[Trial]) -> None:
        pass
