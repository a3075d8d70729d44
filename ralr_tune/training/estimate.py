"""How long an epoch will take, from a few timed steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from ralr_tune.metric import Metric
from ralr_tune.tasks.base import Autocast, Batch, Split, TorchTask
from ralr_tune.training.start import start

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ralr_tune.studyfile import Configuration

FORWARD_SHARE = 1 / 3
"""Of a training step's work (ours): backward costs about twice the forward pass."""


def seconds_per_epoch(task: TorchTask, configuration: Configuration, *, steps: int = 6) -> float:
    """Estimated wall seconds of one epoch, validation included; the first `steps` steps warm up, as many are timed."""
    batch_size = configuration.training.batch_size
    few = _FewBatches(task, steps)
    with closing(start(few, configuration, seed=0).epochs()) as epochs:
        first = next(epochs)
        timed = next(epochs, first).seconds
    training = timed * task.steps("train", batch_size) / few.steps("train", batch_size)
    validation = task.steps("validation", batch_size) / task.steps("train", batch_size)
    return training * (1 + FORWARD_SHARE * validation)


class _FewBatches:
    """A task that stops after a few batches and is not evaluated."""

    def __init__(self, task: TorchTask, count: int) -> None:
        self._task, self._count = task, count

    @property
    def metric(self) -> Metric:
        return self._task.metric

    @property
    def identity(self) -> str:
        return self._task.identity

    @property
    def device(self) -> str:
        return self._task.device

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._task.input_shape

    @property
    def evaluation_batch(self) -> int:
        return self._task.evaluation_batch

    def build_model(self, seed: int) -> nn.Module:
        return self._task.build_model(seed)

    def steps(self, split: Split, batch_size: int) -> int:
        return min(self._count, self._task.steps(split, batch_size))

    def batches(
        self, split: Split, *, seed: int, epoch: int, batch_size: int, augment: Sequence[str] = ()
    ) -> Iterator[Batch]:
        whole = self._task.batches(split, seed=seed, epoch=epoch, batch_size=batch_size, augment=augment)
        return islice(whole, self.steps(split, batch_size))

    def loss(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        return self._task.loss(model, batch, label_smoothing=label_smoothing)

    def evaluate(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> float:
        return 0.0
