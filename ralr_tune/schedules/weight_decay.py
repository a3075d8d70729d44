"""The weight decay of every step of a run: constant or along a curve, with or without the amplification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ralr_tune.schedules.perturbation import Floats
from ralr_tune.schedules.rate import LearningRate

Shape = Literal["constant", "linear", "cosine"]
Follows = Literal["rate", "base"]


@dataclass(frozen=True)
class WeightDecay:
    """Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2; its lambda is `start`, and constant.

    A decoupled optimizer of torch multiplies the weights by 1 - rate * weight_decay, so that the learning rate's curve
    and its amplification act on the decay, too. `follows = "base"` divides a step's weight decay by its factor: the
    decay then follows the base curve alone (our choice, to tell whether amplification acts by steps or by decay).

    `shape` leads from `start` to `end`: "cosine" as in DINO (Caron et al. 2021, arXiv 2104.14294, section 3.2). Step s
    of an epoch with n steps has the position epoch + s / n, as on the learning rate's curve.
    """

    start: float
    end: float
    shape: Shape
    follows: Follows
    rate: LearningRate

    @property
    def varies(self) -> bool:
        """Whether steps may differ."""
        return self.shape != "constant" or (self.follows == "base" and self.rate.perturbation is not None)

    def values(self, epoch: int) -> Floats:
        """Shape (steps of the epoch,): the weight decay of each step of an epoch (0-based)."""
        steps = self.rate.steps(epoch)
        position = (epoch + np.arange(steps) / steps) / self.rate.epochs
        share = {"constant": 0 * position, "linear": position, "cosine": (1 - np.cos(np.pi * position)) / 2}[self.shape]
        decays = self.start + (self.end - self.start) * share
        return np.asarray(decays / self.rate.factors(epoch) if self.follows == "base" else decays)
