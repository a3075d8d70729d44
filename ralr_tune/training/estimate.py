"""Estimates the duration of an epoch from a few timed steps."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from ralr_tune.tasks.base import Batch, Capabilities, Split, TorchTask
from ralr_tune.training.groups import WeightGroup, groups_of
from ralr_tune.training.start import start

if TYPE_CHECKING:
    from torch import nn

    from ralr_tune.studyfile import Configuration

FORWARD_SHARE = 1 / 3
"""Share of a training step's work (our choice): the backward pass costs about twice the forward pass."""


def seconds_per_epoch(task: TorchTask, configuration: Configuration, *, steps: int = 6) -> float:
    """Estimated wall time of one epoch in seconds, including validation: `steps` steps warm up, `steps` are timed."""
    batch_size = configuration.training.batch_size
    few = cast(TorchTask, _FewBatches(task, steps))
    with closing(start(few, configuration, seed=0).epochs()) as epochs:
        first = next(epochs)
        timed = next(epochs, first).seconds
    training = timed * task.steps("train", batch_size) / few.steps("train", batch_size)
    validation = task.steps("validation", batch_size) / task.steps("train", batch_size)
    evaluations = 2 if configuration.training.ema_decay else 1  # the average of the weights and the weights themselves
    share = validation * evaluations / task.capabilities.evaluate_every
    return training * (1 + FORWARD_SHARE * share)


class _FewBatches:
    """The task with only a few batches per epoch, without evaluation and frozen weights; all else is the task's own."""

    def __init__(self, task: TorchTask, count: int) -> None:
        self._task, self._count = task, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    @property
    def capabilities(self) -> Capabilities:
        return replace(self._task.capabilities, evaluate_every=1)

    def steps(self, split: Split, batch_size: int, epoch: int = 0, *, seed: int = 0) -> int:
        return min(self._count, self._task.steps(split, batch_size, epoch, seed=seed))

    def batches(self, split: Split, **given: Any) -> Iterator[Batch]:
        return islice(self._task.batches(split, **given), self._count)

    def evaluate(self, *_: Any, **__: Any) -> float:
        return 0.0

    def weight_groups(self, model: nn.Module, options: Hashable) -> Sequence[WeightGroup]:
        """Never frozen: the epochs without frozen weights take longest."""
        return [replace(group, frozen_epochs=0) for group in groups_of(self._task, model, options)]

    def measure(self, *_: Any, **__: Any) -> dict[str, float]:
        return {self._task.metric.name: 0.0}
