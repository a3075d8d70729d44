"""A quasi-random design that all arms share: the n-th trial of every arm has the same shared values.

Optuna's `QMCSampler` sorts dimensions by name, so an arm with more parameters gets other values of the shared ones, and
it updates its sample number in the database with a race condition. This sampler is a pure function of (seed, block,
ordinal, column): scipy's scrambled Sobol points (Joe and Kuo 2008), in which a parameter has the same column in every
arm.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from ralr_tune.search.space import distribution
from ralr_tune.seeds import SEED_BITS, derive_seed
from ralr_tune.studyfile.values import Domain


def sobol_point(columns: int, ordinal: int, seed: int) -> NDArray[np.float64]:
    """Point `ordinal` (0-based) of the design, shape (columns,), each in [0, 1)."""
    from scipy.stats import qmc  # imported here: it takes a second, and most studies use no Sobol points

    engine = qmc.Sobol(columns, scramble=True, rng=np.random.default_rng(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scipy warns if the number of points is no power of two
        # not fast_forward, which raises an error at 0; drawing 10,000 points takes 50 ms
        point: NDArray[np.float64] = engine.random(ordinal + 1)[-1]
    return point


def from_unit(unit: float, distribution: BaseDistribution) -> Any:
    """The value of `distribution` at quantile `unit` in [0, 1)."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(unit * len(distribution.choices))]
    if isinstance(distribution, IntDistribution):
        return _whole(unit, distribution)
    assert isinstance(distribution, FloatDistribution)
    return _real(unit, distribution)


def _whole(unit: float, distribution: IntDistribution) -> int:
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        bottom, top = math.log(low - 0.5), math.log(high + 0.5)  # half a step more at both ends, as Optuna does
        return min(max(round(math.exp(bottom + unit * (top - bottom))), low), high)
    return low + step * int(unit * ((high - low) // step + 1))


def _real(unit: float, distribution: FloatDistribution) -> float:
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None:
        return low + step * int(unit * (round((high - low) / step) + 1))
    if distribution.log:
        return math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    return low + unit * (high - low)


def unit_params(space: Mapping[str, Domain], unit: float | Mapping[str, float]) -> dict[str, Any]:
    """Every parameter of `space` at a quantile in [0, 1): the same for all (a float), or one for each (a mapping)."""
    units = {name: unit if isinstance(unit, float) else unit[name] for name in space}
    return {name: from_unit(units[name], distribution(domain)) for name, domain in space.items()}


class SharedSampler(BaseSampler):
    """Samples one point of a design that all arms share; each trial needs its own instance."""

    def _unit(self, name: str) -> float:
        """The quantile of a parameter, in [0, 1)."""
        raise NotImplementedError

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return from_unit(self._unit(param_name), param_distribution)


class SharedSobolSampler(SharedSampler):
    """Samples a point of scrambled Sobol points."""

    def __init__(self, columns: Mapping[str, int], *, ordinal: int, seed: int) -> None:
        self._columns = columns
        self._point = sobol_point(max(len(columns), 1), ordinal, seed)

    def _unit(self, name: str) -> float:
        return float(self._point[self._columns[name]])


class SharedRandomSampler(SharedSampler):
    """Samples independent uniform values, each from the seed of its trial and its name."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def _unit(self, name: str) -> float:
        return derive_seed("value", self._seed, name) / float(1 << SEED_BITS)
