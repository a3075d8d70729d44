"""The learning-rate range test: trains a new network for a few hundred steps while the rate grows.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks" (WACV 2017), section 3.3. There the rate grows
linearly over several epochs; here it grows by a constant factor from step to step (our choice), since the rates that
are worth searching span several decades.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

import torch

from ralr_tune.logs import warnings_to_log
from ralr_tune.records import RateSweep
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile.kind import Advance, Diverged
from ralr_tune.tasks.base import Batch, TorchTask
from ralr_tune.training.failures import trial_errors
from ralr_tune.training.loop import seeded
from ralr_tune.training.memory import MemoryBudget, OutOfMemory, free, too_few_samples_is_oom, within_memory
from ralr_tune.training.start import start

if TYPE_CHECKING:
    from torch import Tensor

    from ralr_tune.studyfile import Configuration

READ_EVERY = 10
"""Steps between two readings of the losses (our choice): reading them after every step would stall a GPU."""


def sweep_rates(
    task: TorchTask,
    configuration: Configuration,
    *,
    seed: int,
    rates: Sequence[float],
    diverged: Diverged,
    advance: Advance,
) -> RateSweep:
    """See `studyfile.kind.RateSweeper`. Trains on the training split and evaluates nothing.

    If memory runs out, the sweep starts again in micro-batches of half the size.
    """
    sweep = _Sweep(task, configuration, seed)
    with warnings_to_log(), trial_errors():
        while isinstance(swept := within_memory(lambda: sweep.run(rates, diverged, advance)), OutOfMemory):
            sweep.use_less_memory(swept.reason)
            free()
    return swept


class _Sweep:
    """The sweep of one seed. Its steps run eagerly: so few do not pay for being compiled or recorded."""

    def __init__(self, task: TorchTask, configuration: Configuration, seed: int) -> None:
        eager = configuration.training.model_copy(update={"compile": False, "ema_decay": 0.0})
        self._configuration = configuration.model_copy(update={"training": eager})
        self._task, self._seed = task, seed
        self._memory = MemoryBudget()
        self._largest_batch = 0

    def use_less_memory(self, reason: str) -> None:
        """Raises TrialError("oom") below one sample."""
        batch_size, largest = self._configuration.training.batch_size, self._largest_batch or None
        self._memory = self._memory.less_for_training(batch_size, 1, reason, largest_batch=largest)

    def run(self, rates: Sequence[float], diverged: Diverged, advance: Advance) -> RateSweep:
        """Starts from a new network and ends after the last rate, or when the loss has diverged."""
        losses: list[float] = []
        unread: list[Tensor] = []
        for loss in self._losses(rates):
            unread.append(loss)
            if len(unread) == READ_EVERY or len(losses) + len(unread) == len(rates):
                losses += torch.stack(unread).tolist()
                advance(len(losses))
                unread = []
                if diverged(losses):
                    break
        return RateSweep(self._seed, tuple(rates[: len(losses)]), tuple(losses), diverged(losses))

    def _losses(self, rates: Sequence[float]) -> Iterator[Tensor]:
        """The loss of each step, on the device."""
        state, micro_batch = start(self._task, self._configuration, seed=self._seed).state, self._memory.training
        state.begin(self._configuration.training.epochs - 1)  # nothing is frozen: that, too, is part of a schedule
        for rate, (epoch, step, batch) in zip(rates, self._batches(), strict=False):
            self._largest_batch = max(self._largest_batch, len(batch))
            # the generators are seeded for each step: they must not stay changed while this generator is suspended
            key = derive_seed("dropout", self._seed, epoch, step)
            with seeded(key, self._task.device), too_few_samples_is_oom(micro_batch):
                loss = state.step(batch, rate, micro_batch)
            yield loss.clone()

    def _batches(self) -> Iterator[tuple[int, int, Batch]]:
        """Epoch after epoch, without end."""
        training, options = self._configuration.training, self._configuration.options
        for epoch in count():
            batches = self._task.batches(
                "train", seed=self._seed, epoch=epoch, batch_size=training.batch_size, options=options
            )
            yield from ((epoch, step, batch) for step, batch in enumerate(batches))
