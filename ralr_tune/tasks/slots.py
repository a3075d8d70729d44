"""Training several trials at once, as a worker sees it: how many, and one epoch of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from ralr_tune.errors import UsageError
from ralr_tune.tasks.trial import Trial

Slots = int | Literal["auto"]


def parse_slots(text: str) -> Slots:
    """What `--slots` says. Raises UsageError."""
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdigit() and int(text) >= 1:
        return int(text)
    raise UsageError(f"--slots {text}: allowed: auto, or a number of trials, at least 1")


class SlotTrainer(Protocol):
    """Trains ahead what fits together; what it leaves, each trial trains by itself when asked for its record."""

    @property
    def slots(self) -> int:
        """How many trials to have in hand."""

    def settle(self, trial: Trial, waiting: Callable[[], int]) -> None:
        """With slots "auto", once: how many are fastest for trials like this one, where so many rows wait."""

    def train(self, trials: Sequence[Trial]) -> None:
        """Trains the next epoch of trials; changes nothing of one where that fails."""


class SerialTrainer:
    """A SlotTrainer that leaves everything to the trials."""

    slots = 1

    def settle(self, trial: Trial, waiting: Callable[[], int]) -> None:
        pass

    def train(self, trials: Sequence[Trial]) -> None:
        pass
