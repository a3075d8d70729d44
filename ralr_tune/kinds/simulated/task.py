"""The simulated task trains nothing: its curves come from a formula with known effects. No torch.

It serves to calibrate the statistics, to run thousands of trials and hundreds of workers, and to test the search. After
t epochs, with learning rate lr and study options in `code`:

    learned(t)   = 1 - (1 + t) ** -RATE                                    a power law
    asymptote    = CEILING - CURVATURE * log10(lr / `optimum`)**2          best at lr = `optimum`
                   + `effect` if the configuration amplifies               (probability above 0)
                   - sum of `loss` * distance**2 over `effects`            0 at each parameter's `best`
    distance     = value - `best`, or log10(value / `best`) if `log` = true
    accuracy(t)  = CHANCE + (asymptote - CHANCE) * learned(t)
                   + `noise` * a normal draw of the seed                   seed effect, the same in every epoch
                   + s(t) * a normal draw of (seed, t)                     noise between epochs
    s(t)         = hypot(`epoch_noise`, `jitter` * ln(factor of epoch t))  stronger after an amplified epoch

clipped to [0, 1]. The jitter has mean zero, so that `effect` is exactly what amplification changes on average. A trial
diverges in the first epoch whose learning rate, amplification included, is above `diverges_above`. With the
metric `error`, a trial reports the negative of the accuracy, in every split.

`effects` defines the effect of further numbers of a configuration, by their Optuna names:

    [task.data.effects]
    weight_decay = { best = 1e-4, loss = 0.02, log = true }
    "amplify.probability" = { best = 0.3, loss = 0.1 }

`loss` is the accuracy lost at one unit, or at one decade, from `best`. It applies if the configuration has
the number; effects of `amplify.` apply if it amplifies. Everything without an entry (batch size, augmentation, the base
curve, ...) is ignored on purpose: parameters with a known effect of 0. All constants are our choice.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ralr_tune.errors import DataError, TrialError
from ralr_tune.kinds.simulated.metrics import METRICS
from ralr_tune.kinds.simulated.section import Effect
from ralr_tune.metric import Metric
from ralr_tune.records import AMPLIFICATION
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import Split

if TYPE_CHECKING:
    from ralr_tune.studyfile import Configuration

CEILING = 0.95
CHANCE = 0.1
CURVATURE = 0.08
"""Accuracy lost at one decade from the optimum."""
RATE = 1.0
TRAINING_GAP = 0.01
"""How much higher the accuracy is on the training data than on the validation data."""


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
    """Simulated duration of an epoch; the trial sleeps."""
    effects: Mapping[str, Effect] = field(default_factory=dict)
    loss: bool = False
    """Whether trials also measure a loss every epoch."""
    identity: str = ""
    metric: Metric = METRICS["accuracy"]

    def trajectory(self, configuration: Configuration, *, seed: int) -> Trajectory:
        """The training of one configuration from one seed."""
        return Trajectory(self, configuration, seed)

    def point(self, configuration: Configuration, *, seed: int, epochs: int, split: Split = "validation") -> float:
        """The metric after `epochs` epochs. A pure function of its arguments.

        Raises TrialError("diverged") if the learning rate of the last of these epochs was too large.
        """
        return self.trajectory(configuration, seed=seed).point(epochs, split)

    def asymptote(self, configuration: Configuration) -> float:
        """The limit of the mean accuracy, not clipped."""
        amplifies = _amplifies(configuration)
        known = {name: configuration.number(name) for name in self.effects}
        lost = sum(
            self.loss_at(name, value)
            for name, value in known.items()
            if value is not None and (amplifies or not name.startswith(AMPLIFICATION))
        )
        return CEILING - self.loss_at("lr", configuration.training.lr) + (self.effect if amplifies else 0.0) - lost

    def best(self, name: str) -> float | None:
        """The known best value of a parameter, by its Optuna name; None for one that has no effect."""
        if name == "lr":
            return self.optimum
        return self.effects[name].best if name in self.effects else None

    def loss_at(self, name: str, value: float) -> float:
        """The known effect of a parameter: by how much the asymptote at `value` is below that at its best value.

        Raises DataError for a value that is not above 0 if the parameter has a log scale.
        """
        if name == "lr":
            return CURVATURE * math.log10(value / self.optimum) ** 2
        if name not in self.effects:
            return 0.0
        effect = self.effects[name]
        if not effect.log:
            return effect.loss * (value - effect.best) ** 2
        if value <= 0:
            raise DataError(f"data.effects.{name}.log = true: {name} = {value:g}; must be above 0")
        return effect.loss * math.log10(value / effect.best) ** 2


class Trajectory:
    """One simulated training. Everything constant is computed once, so that an epoch takes microseconds."""

    def __init__(self, task: SimulatedTask, configuration: Configuration, seed: int) -> None:
        rate = configuration.learning_rate(1, seed=derive_seed("amplify", seed))  # one step an epoch
        self.rates: list[float] = rate.trace()[:, 0].tolist()
        """Learning rate of each epoch, amplification included."""
        self.factors: list[float] = rate.factor_trace()[:, 0].tolist()
        self._task, self._seed = task, seed
        self._asymptote = task.asymptote(configuration)
        self._seed_draw = _normal("luck", seed)

    def point(self, epochs: int, split: Split = "validation") -> float:
        """As `SimulatedTask.point`."""
        task = self._task
        learned = 1.0 - (1.0 + epochs) ** -RATE
        epoch_std = math.hypot(task.epoch_noise, task.jitter * math.log(self._factor(epochs)))
        accuracy = (
            CHANCE
            + (self._asymptote - CHANCE) * learned
            + task.noise * self._seed_draw
            + epoch_std * _normal("wobble", self._seed, epochs, "test" if split == "test" else "validation")
            + (0.0 if split in ("validation", "test") else TRAINING_GAP)
        )
        return task.metric.as_gain(float(min(1.0, max(0.0, accuracy))))

    def _factor(self, epochs: int) -> float:
        """The amplification factor of the last of these epochs. Raises TrialError as `point` does."""
        if epochs == 0:
            return 1.0
        lr, limit = self.rates[epochs - 1], self._task.diverges_above
        if lr > limit:
            raise TrialError(
                "diverged", f"learning rate {lr:g} in epoch {epochs}; the simulated task diverges above {limit:g}"
            )
        return self.factors[epochs - 1]


def _amplifies(configuration: Configuration) -> bool:
    return configuration.amplify is not None and configuration.amplify.probability > 0


def _normal(purpose: str, *key: int | str) -> float:
    return random.Random(derive_seed(f"simulated {purpose}", *key)).gauss(0.0, 1.0)
