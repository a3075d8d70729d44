"""A trial's next epoch for a fused trainer: the inputs, and where the result goes."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ralr_tune.tasks.trial import TrainingSplit
from ralr_tune.training import fused_optimizer
from ralr_tune.training.groups import train_as_one
from ralr_tune.training.loop import TorchTrial, TrainedEpoch, log_once

if TYPE_CHECKING:
    from ralr_tune.studyfile.configuration import TrainingConfig
    from ralr_tune.training.train_state import TrainState


logger = logging.getLogger(__name__)


class SlotEpoch:
    """The next epoch of a trial. The trial's own `epochs` continues from the result given to `finish`."""

    def __init__(self, trial: TorchTrial) -> None:
        self._trial = trial

    @property
    def state(self) -> TrainState:
        """The state after the last epoch; the trainer trains it for this epoch before it calls `finish`."""
        return self._trial.state

    @property
    def training(self) -> TrainingConfig:
        return self._trial.configuration.training

    @property
    def options(self) -> Hashable:
        return self._trial.configuration.options

    @property
    def split(self) -> TrainingSplit:
        return self._trial.split

    @property
    def seed_and_epoch(self) -> tuple[int, int]:
        """Determines the epoch's order, augmentation and dropout; epochs count from 0."""
        return self._trial.seed, self._trial.epochs_done

    def rates(self) -> NDArray[np.float64]:
        """Learning rates, one per step."""
        return self._trial.learning_rate.rates(self._trial.epochs_done)

    def weight_decays(self) -> NDArray[np.float64]:
        """Weight decays, one per step."""
        return self._trial.weight_decay.values(self._trial.epochs_done)

    @property
    def weight_decay_varies(self) -> bool:
        return self._trial.weight_decay.varies

    def key(self) -> tuple[object, ...] | None:
        """What epochs must have in common to be fused; None if this one cannot be."""
        trial, training = self._trial, self.training
        optimizer = fused_optimizer.fusion_key(training)
        alone = trial.memory.training is not None or training.compile is True or trial.finished
        if (
            optimizer is None
            or alone
            or not trial.task.capabilities.fusable
            or trial.task.capabilities.evaluate_every > 1
        ):
            return None
        if not train_as_one(self.state.groups):
            _log_that_groups_train_alone()
            return None
        if training.ema_decay:
            log_once("one trial at a time: the average of the weights (ema_decay) has no fused form")
            return None
        state, steps = self.state, trial.learning_rate.steps(trial.epochs_done)
        how = state.precision.bfloat16, state.compilation.recorded, state.compilation.kernels
        return (*optimizer, training.batch_size, self.options, *how, self.split, steps)

    def fresh_state(self) -> TrainState:
        """An untrained state for timing, to be discarded."""
        return self.state.fresh(self._trial.task.build_model(self._trial.seed))

    def finish(self, loss: float, value: float, seconds: float) -> None:
        """Reports that the state was trained for this epoch, with this mean loss, and evaluated."""
        self._trial.trained_ahead = TrainedEpoch(loss, value, seconds)


@cache
def _log_that_groups_train_alone() -> None:
    """Once per process."""
    logger.info("one trial at a time: weights with rates of their own or frozen ones do not train in slots")
