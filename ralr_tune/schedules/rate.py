"""The learning rate of every step of a run: a base rate, a curve, a perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ralr_tune.schedules.checks import check_choice, check_integer, check_parameter, refusal
from ralr_tune.schedules.curves import SLACK, Curve
from ralr_tune.schedules.perturbation import GRANULARITIES, Floats, Granularity, Perturbation


@dataclass(frozen=True)
class LearningRate:
    """rate(epoch, step) = lr * curve * factor; a pure function of its fields.

    `granularity` is the curve's: "epoch" keeps the rate constant within an epoch, "step" follows the curve at every
    step. The perturbation has its own. `seed` is passed to the perturbation unchanged: derive it
    (`seeds.derive_seed("amplify", ...)`).

    `steps_per_epoch` is one number for all epochs or, if they differ (batches by length), one number for each. Step s
    of an epoch with n steps has the position epoch + s / n: every epoch covers one unit of the curve, however many
    steps it has (our choice), so that lengths and milestones in epochs keep their meaning. At step granularity the
    index of a draw is the number of steps before it in the whole run.
    """

    lr: float
    curve: Curve
    epochs: int
    steps_per_epoch: int | tuple[int, ...]
    perturbation: Perturbation | None
    seed: int
    granularity: Granularity = "epoch"

    def __post_init__(self) -> None:
        check_parameter("lr", self.lr)
        check_parameter("epochs", self.epochs)
        self._check_steps()
        if self.curve.epochs != self.epochs:
            raise refusal("curve.epochs", self.curve.epochs, f"the run's own, {self.epochs}")
        check_choice("granularity", self.granularity, GRANULARITIES)

    def rates(self, epoch: int) -> Floats:
        """Shape (steps of the epoch,): the rate of each step of an epoch (0-based), including the factors."""
        self._check(epoch)
        return self._rates(epoch, epoch + 1)

    def factors(self, epoch: int) -> Floats:
        """Shape (steps of the epoch,): the perturbation of each step of an epoch (0-based); 1 without one."""
        self._check(epoch)
        return self._factors(epoch, epoch + 1)

    def steps(self, epoch: int) -> int:
        """Number of steps of an epoch (0-based)."""
        self._check(epoch)
        return self._steps(epoch, epoch + 1)[0]

    def trace(self) -> Floats:
        """Shape (epochs, steps_per_epoch): the rates of the whole run.

        Raises ValueError if epochs differ in their number of steps: call `rates` for each epoch instead.
        """
        return self._rates(0, self.epochs).reshape(self.epochs, self._common_steps())

    def base_trace(self) -> Floats:
        """Shape (epochs, steps_per_epoch): the curve's multipliers of the whole run. Raises ValueError as `trace`."""
        return self._base(0, self.epochs).reshape(self.epochs, self._common_steps())

    def factor_trace(self) -> Floats:
        """Shape (epochs, steps_per_epoch): the factors of the whole run. Raises ValueError as `trace` does."""
        return self._factors(0, self.epochs).reshape(self.epochs, self._common_steps())

    def _check(self, epoch: int) -> None:
        check_integer("epoch", epoch, low=0, below=self.epochs)

    def _check_steps(self) -> None:
        steps = self.steps_per_epoch
        if isinstance(steps, tuple) and len(steps) != self.epochs:
            raise refusal("steps_per_epoch", steps, f"one number, or one for each of {self.epochs} epochs")
        for each in steps if isinstance(steps, tuple) else (steps,):
            check_integer("steps_per_epoch", each, low=1)

    def _common_steps(self) -> int:
        steps = set(self._steps(0, self.epochs))
        if len(steps) > 1:
            raise refusal("steps_per_epoch", self.steps_per_epoch, "for a trace: one number for all epochs")
        return steps.pop()

    def _steps(self, first: int, last: int) -> Sequence[int]:
        """Number of steps of each epoch in [first, last)."""
        steps = self.steps_per_epoch
        return steps[first:last] if isinstance(steps, tuple) else [steps] * (last - first)

    def _rates(self, first: int, last: int) -> Floats:
        return np.asarray(self.lr * self._base(first, last) * self._factors(first, last))

    def _base(self, first: int, last: int) -> Floats:
        positions = self._positions(first, last, self.granularity)
        base = np.array([self.curve.factor(t) for t in positions.tolist()])
        return self._each_step(base, first, last, self.granularity)

    def _factors(self, first: int, last: int) -> Floats:
        if self.perturbation is None:
            return np.ones(sum(self._steps(first, last)))
        granularity = self.perturbation.granularity
        positions = self._positions(first, last, granularity)
        begin, end = (share * self.epochs - SLACK for share in self.perturbation.window)
        before = first if granularity == "epoch" else sum(self._steps(0, first))
        drawn = self.perturbation.factors(self.seed, before, positions.size)
        factors = np.where((begin <= positions) & (positions < end), drawn, 1.0)
        return self._each_step(factors, first, last, granularity)

    def _positions(self, first: int, last: int, granularity: Granularity) -> Floats:
        """Positions, in epochs, of the draws or new rates of the epochs in [first, last).

        Shape (epochs,), or (steps of these epochs,) at step granularity.
        """
        epochs = np.arange(first, last, dtype=np.float64)
        if granularity == "epoch":
            return epochs
        steps = np.array(self._steps(first, last))
        within = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
        return np.asarray(np.repeat(epochs, steps) + within / np.repeat(steps, steps))

    def _each_step(self, values: Floats, first: int, last: int, granularity: Granularity) -> Floats:
        """Expands values at this granularity to one value for each step of these epochs."""
        return np.repeat(values, self._steps(first, last)) if granularity == "epoch" else values
