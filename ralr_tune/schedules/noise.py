"""timm's learning-rate noise (timm/scheduler/scheduler.py), an alternative to random amplification.

    lr(t) = base(t) * (1 + noise(t));   |noise| < amplitude

It deliberately differs from timm in two points. timm seeds with `noise_seed + t`, so the traces of neighbouring seeds
are one shifted sequence; here they are unrelated. timm accepts a standard deviation but ignores it; here it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from ralr_tune.schedules.checks import check_choice, check_parameter, refusal
from ralr_tune.schedules.perturbation import Floats, Perturbation, uniforms

NoiseLaw = Literal["normal", "uniform"]
NOISE_LAWS: tuple[NoiseLaw, ...] = ("normal", "uniform")


@dataclass(frozen=True)
class Noise(Perturbation):
    """A factor in (1 - amplitude, 1 + amplitude), for every index.

    "normal": a normal with standard deviation `std`, truncated to the interval; "uniform": uniform, without `std`.
    """

    amplitude: float = 0.67
    std: float = 1.0
    law: NoiseLaw = "normal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_parameter("noise.amplitude", self.amplitude)
        check_parameter("noise.std", self.std)
        check_choice("law", self.law, NOISE_LAWS)
        if self.law == "uniform" and self.std != 1.0:
            raise refusal("std", self.std, "no std, since law is 'uniform'; only 'normal' uses it")

    def factors(self, seed: int, start: int, count: int) -> Floats:
        share = uniforms(seed, start, count)[:, 0]
        noise = self._normal(share) if self.law == "normal" else self.amplitude * (2 * share - 1)
        return 1.0 + np.clip(noise, -self.amplitude, self.amplitude)

    def _normal(self, share: Floats) -> Floats:
        """The normal truncated at +-amplitude, by its inverse distribution function.

        The same law as redrawing until the value is inside, but it uses exactly one uniform for each index.
        """
        normal = NormalDist(sigma=self.std)
        low, high = normal.cdf(-self.amplitude), normal.cdf(self.amplitude)
        below_one = np.minimum(low + (high - low) * share, 1 - 2.0**-53)  # at 1 the inverse is infinite
        return np.array([normal.inv_cdf(each) for each in below_one.tolist()])
