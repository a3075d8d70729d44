"""A random factor on the learning rate, drawn independently for every index (epoch or step).

A draw is a pure function of (seed, index): Philox-4x64 (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3") with the seed as its key and the index as its counter. So the trace does not depend on resumes, on the worker
or on the order of evaluation, and neighbouring seeds give unrelated traces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

from ralr_tune.schedules.checks import check_choice, check_integer, check_number, refusal

Floats = NDArray[np.float64]

Granularity = Literal["epoch", "step"]
GRANULARITIES: tuple[Granularity, ...] = ("epoch", "step")

_LIMIT = 2**64  # one word of Philox's key, and of its counter


def uniforms(seed: int, start: int, count: int) -> Floats:
    """Shape (count, 4): four independent uniforms, strictly inside (0, 1), for each index from `start` on.

    Computed from raw words, since numpy guarantees that a bit generator's words are the same in every version, but not
    its distributions (NEP 19). 52 bits plus one half, so that neither 0 nor 1 can occur.
    """
    check_integer("seed", seed, low=0, below=_LIMIT)
    check_integer("count", count, low=0, below=_LIMIT)
    check_integer("index", start, low=0, below=_LIMIT - count)
    words = Philox(key=int(seed), counter=int(start)).random_raw(4 * count)
    return ((words.reshape(count, 4) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


@dataclass(frozen=True)
class Perturbation(ABC):
    """A random multiplier of the scheduled rate; one draw per epoch or per step.

    `window`: shares of the run, [first, last), outside of which the factor is 1. It refers to the whole run, so
    `LearningRate` applies it; `factor` and `factors` ignore it. It does not shift draws.
    """

    _: KW_ONLY
    granularity: Granularity = "epoch"
    window: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_choice("granularity", self.granularity, GRANULARITIES)
        if not isinstance(self.window, tuple | list) or len(self.window) != 2:
            raise refusal("window", self.window, "two shares of the run, first < last")
        first, last = self.window
        check_number("window", last, "(0, 1]")
        check_number("window", first, f"[0, {last})")

    def factor(self, seed: int, index: int) -> float:
        """The factor at one index (0-based epoch, or step counted over the whole run)."""
        return float(self.factors(seed, index, 1)[0])

    @abstractmethod
    def factors(self, seed: int, start: int, count: int) -> Floats:
        """Shape (count,): the factors at the indices start, start + 1, ...; each equals `factor` there."""
