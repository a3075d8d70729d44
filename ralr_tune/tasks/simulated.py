"""The simulated task trains nothing: its curves come from a formula whose answers are known. No torch.

It is how the statistics are calibrated, how thousands of trials and hundreds of workers are tried, and what tests of
the search run on. With t epochs done, learning rate lr and study option names in `code`:

    learned(t)   = 1 - (1 + t) ** -RATE                                    a power law
    asymptote    = CEILING - CURVATURE * log10(lr / `optimum`)**2          best at lr = `optimum`
                   + `effect` where the configuration amplifies            (probability above 0)
    accuracy(t)  = CHANCE + (asymptote - CHANCE) * learned(t)
                   + `noise` * a normal draw of the seed                   a seed's luck, in every epoch
                   + s(t) * a normal draw of (seed, t)                     wobble between epochs
    s(t)         = hypot(`epoch_noise`, `jitter` * ln(factor of epoch t))  stronger after an amplified epoch

cut to [0, 1]. The jitter has mean zero, so that `effect` is exactly what amplification changes on average. A trial
diverges in the first epoch whose learning rate, amplification included, is above `diverges_above`. Everything else in
a configuration (weight decay, batch size, augmentation, the base curve, the other numbers of the amplification, ...)
is ignored on purpose: parameters that do not matter. All constants are ours.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ralr_tune.errors import DataError, TrialError
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import METRICS, Metric, Split

if TYPE_CHECKING:
    from ralr_tune.schedules.rate import LearningRate
    from ralr_tune.spec import Configuration

CEILING = 0.95
CHANCE = 0.1
CURVATURE = 0.08
"""Accuracy lost at one decade from the optimum."""
RATE = 1.0
TRAINING_GAP = 0.01
"""What the training data are known better than the validation data."""


@dataclass(frozen=True)
class SimulatedTask:
    """The formula with its constants; see the module's docstring."""

    optimum: float = 0.1
    effect: float = 0.0
    noise: float = 0.005
    epoch_noise: float = 0.002
    jitter: float = 0.01
    diverges_above: float = 5.0
    seconds_per_epoch: float = 0.0
    """How long an epoch pretends to take; the trial sleeps."""
    identity: str = ""

    @property
    def metric(self) -> Metric:
        return METRICS["accuracy"]

    def point(self, configuration: Configuration, *, seed: int, epochs: int, split: Split = "validation") -> float:
        """Accuracy after `epochs` done. A pure function of its arguments.

        Raises TrialError("diverged") where the learning rate of the last of these epochs was too large.
        """
        factor = self._factor(configuration, seed, epochs) if epochs else 1.0
        learned = 1.0 - (1.0 + epochs) ** -RATE
        wobble = math.hypot(self.epoch_noise, self.jitter * math.log(factor))
        accuracy = (
            CHANCE
            + (self.asymptote(configuration) - CHANCE) * learned
            + self.noise * _normal("luck", seed)
            + wobble * _normal("wobble", seed, epochs, "test" if split == "test" else "validation")
            + (0.0 if split in ("validation", "test") else TRAINING_GAP)
        )
        return float(min(1.0, max(0.0, accuracy)))

    def asymptote(self, configuration: Configuration) -> float:
        """What the accuracy tends to on average, uncut."""
        decades = math.log10(configuration.training.lr / self.optimum)
        amplifies = configuration.amplify is not None and configuration.amplify.probability > 0
        return CEILING - CURVATURE * decades**2 + (self.effect if amplifies else 0.0)

    def _factor(self, configuration: Configuration, seed: int, epochs: int) -> float:
        rate = learning_rate(configuration, seed)
        lr = float(rate.rates(epochs - 1)[0])
        if lr > self.diverges_above:
            raise TrialError(
                "diverged",
                f"learning rate {lr:g} in epoch {epochs}; the simulated task diverges above {self.diverges_above:g}",
            )
        return float(rate.factors(epochs - 1)[0])


def learning_rate(configuration: Configuration, seed: int) -> LearningRate:
    """The learning rate of a simulated run: one step an epoch."""
    return configuration.learning_rate(1, seed=derive_seed("amplify", seed))


def simulated_task(data: Mapping[str, Any], *, identity: str) -> SimulatedTask:
    """The task with these constants. Raises DataError on an unknown or impossible one."""
    allowed = [field.name for field in fields(SimulatedTask) if field.name != "identity"]
    if unknown := sorted(set(data) - set(allowed)):
        raise DataError(f"data.{unknown[0]}: no constant of the simulated task; allowed: {', '.join(allowed)}")
    for name, value in data.items():
        lowest = -math.inf if name == "effect" else 0.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value < math.inf:
            raise DataError(
                f"data.{name} = {value!r}: must be a finite number{'' if name == 'effect' else ', at least 0'}"
            )
    return SimulatedTask(**data, identity=identity)


def _normal(purpose: str, *key: int | str) -> float:
    return random.Random(derive_seed(f"simulated {purpose}", *key)).gauss(0.0, 1.0)
