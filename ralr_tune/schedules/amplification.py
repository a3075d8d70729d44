"""Random amplification of the learning rate: the method of RALR.

RALR (Deng et al., Applied Sciences 12(1), 268, 2022, doi 10.3390/app12010268) amplifies the rate between two boundary
values with a given probability. The details of the law are our choice, since no more of the paper was accessible:

    lr(t) = base(t) * factor(t);   factor(t) = 1 with probability 1 - p, otherwise drawn from [lower, upper]

An amplification does not persist: the next draw starts from the base curve again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ralr_tune.schedules.checks import check_choice, check_number, check_parameter
from ralr_tune.schedules.perturbation import Floats, Perturbation, uniforms

Law = Literal["uniform", "loguniform"]
LAWS: tuple[Law, ...] = ("uniform", "loguniform")


@dataclass(frozen=True)
class Amplification(Perturbation):
    """With `probability` a factor in [lower, upper], otherwise 1. Raises ValueError unless 1 <= lower <= upper and
    `probability` is in [0, 1]."""

    probability: float
    lower: float
    upper: float
    law: Law = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_parameter("amplify.probability", self.probability)
        check_parameter("amplify.lower", self.lower)
        check_number("upper", self.upper, f"[{self.lower}, inf)")
        check_choice("law", self.law, LAWS)

    def factors(self, seed: int, start: int, count: int) -> Floats:
        drawn = uniforms(seed, start, count)
        return np.where(drawn[:, 0] < self.probability, self._amplified(drawn[:, 1]), 1.0)

    def _amplified(self, share: Floats) -> Floats:
        if self.law == "uniform":
            values = self.lower + (self.upper - self.lower) * share
        else:
            values = self.lower * (self.upper / self.lower) ** share
        # rounding can exceed a bound in the last bit
        return np.clip(values, self.lower, self.upper)
