"""The learning rate of every step of a run: a base rate, a curve, a perturbation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ralr_tune.schedules.checks import check_choice, check_integer, check_parameter, refusal
from ralr_tune.schedules.curves import SLACK, Curve
from ralr_tune.schedules.perturbation import GRANULARITIES, Floats, Granularity, Perturbation


@dataclass(frozen=True)
class LearningRate:
    """rate(epoch, step) = lr * curve * factor; a pure function of its fields.

    `granularity` is the curve's: "epoch" holds the rate over an epoch, "step" moves along the curve at every step. The
    perturbation has its own. `seed` is the perturbation's, as it is: derive it (`seeds.derive_seed("amplify", ...)`).
    """

    lr: float
    curve: Curve
    epochs: int
    steps_per_epoch: int
    perturbation: Perturbation | None
    seed: int
    granularity: Granularity = "epoch"

    def __post_init__(self) -> None:
        check_parameter("lr", self.lr)
        check_parameter("epochs", self.epochs)
        check_integer("steps_per_epoch", self.steps_per_epoch, low=1)
        if self.curve.epochs != self.epochs:
            raise refusal("curve.epochs", self.curve.epochs, f"the run's own, {self.epochs}")
        check_choice("granularity", self.granularity, GRANULARITIES)

    def rates(self, epoch: int) -> Floats:
        """Shape (steps_per_epoch,): the rate of each step of an epoch (0-based), factors included."""
        self._check(epoch)
        return self._rates(epoch, epoch + 1).ravel()

    def factors(self, epoch: int) -> Floats:
        """Shape (steps_per_epoch,): the perturbation of each step of an epoch (0-based); 1 where there is none."""
        self._check(epoch)
        return self._factors(epoch, epoch + 1).ravel()

    def trace(self) -> Floats:
        """Shape (epochs, steps_per_epoch): the rates of the whole run."""
        return self._rates(0, self.epochs)

    def factor_trace(self) -> Floats:
        """Shape (epochs, steps_per_epoch): the factors of the whole run."""
        return self._factors(0, self.epochs)

    def _check(self, epoch: int) -> None:
        check_integer("epoch", epoch, low=0, below=self.epochs)

    def _rates(self, first: int, last: int) -> Floats:
        positions = self._positions(first, last, self.granularity)
        base = np.array([self.curve.factor(t) for t in positions.ravel().tolist()]).reshape(positions.shape)
        return np.asarray(self.lr * base * self._factors(first, last))

    def _factors(self, first: int, last: int) -> Floats:
        factors = np.ones((last - first, self.steps_per_epoch))
        if self.perturbation is None:
            return factors
        positions = self._positions(first, last, self.perturbation.granularity)
        begin, end = (share * self.epochs - SLACK for share in self.perturbation.window)
        drawn = self.perturbation.factors(self.seed, first * positions.shape[1], positions.size)
        factors[:] = np.where((begin <= positions) & (positions < end), drawn.reshape(positions.shape), 1.0)
        return factors

    def _positions(self, first: int, last: int, granularity: Granularity) -> Floats:
        """Where a draw or a new rate stands in the epochs from `first` to before `last`, in epochs.

        Shape (epochs, 1) or (epochs, steps_per_epoch).
        """
        count = 1 if granularity == "epoch" else self.steps_per_epoch
        return np.asarray(np.arange(first, last)[:, None] + np.arange(count) / count)
