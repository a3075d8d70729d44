"""The recorded world: one arm of a table of real training runs.

Rule: a sampler's proposal becomes the nearest recorded configuration that the search has not tried. Nearest in the
space scaled to [0, 1] in every parameter (logarithmic ones by their logarithm), all parameters with equal weight.
Nothing lies between recorded configurations, so no curve is invented. Without replacement, as a sampler's proposals in
a continuous space differ, too: with it, a search that has converged would train one configuration many times, and the
best of many seeds would stand for the best of many configurations.

The seeds that were recorded are the population: a replay draws from them with replacement, one draw for each training
seed, whole curves, the same draw in both arms and in twins. So the true mean of a configuration is exact.

What a small population does. With S seeds, (1) the variance of the population is on average (S - 1) / S of the real
one: 6% less with 16 seeds, 13% with 8 (`sd` is that of the population, so that differences in its unit are exact);
(2) true means of the population vary by sd / sqrt(S) around the real ones, so the best recorded configuration is a
little better than it is in reality, and good ones are further apart; (3) the tails end at the largest of S values, and
n draws are all the same seed with probability S ** (1 - n): 0.4% of three with 16 seeds, 1.6% with 8, and then a test
sees no variance at all. Draws are independent: search, choosing and judging share seeds only by this chance.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.decisions.tables import ARMS, Table
from benchmarks.decisions.worlds import Curve, Params, match_study, worst
from ralr_tune.errors import UsageError
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.values import Choice, Domain

MIN_SEEDS = 4
"""Fewer complete seeds are no population (our choice)."""
GOOD = 0.1
"""The share of the configurations, the best by true mean, whose standard deviation is the unit of differences."""


@dataclass(frozen=True)
class RecordedWorld:
    """One arm of a table."""

    table: Table
    arm: str
    """"monotone" or "ralr"."""

    def __post_init__(self) -> None:
        if self.table.complete_seeds < MIN_SEEDS:
            name, seeds = self.table.plan.name, self.table.complete_seeds
            raise UsageError(f"table {name}: {seeds} complete seeds; needs at least {MIN_SEEDS}")

    @property
    def name(self) -> str:
        return f"{self.table.plan.name}, {self.arm}"

    @cached_property
    def identity(self) -> str:
        """Of the curves, too: a table grows."""
        curves = hashlib.sha256(self._curves.tobytes() + self._twins.tobytes()).hexdigest()
        return f"{self.name} {self.spec.fingerprint} {curves}"

    @cached_property
    def spec(self) -> StudySpec:
        tables = self.table.plan.tables
        return match_study(tables, tables["arms"][self.arm])

    @cached_property
    def best(self) -> float:
        return float(self._means.max())

    @cached_property
    def sd(self) -> float:
        """Median over the best tenth of the configurations, of their population (ddof = 0)."""
        count = max(1, round(GOOD * len(self._means)))
        return float(np.median(self.finals[np.argsort(-self._means)[:count]].std(axis=1)))

    def offered(self, params: Params, tried: Collection[Params]) -> Params:
        """See the module. Raises UsageError if every configuration was tried."""
        distances = ((self._units - self._unit(params)) ** 2).sum(axis=1)
        distances[[self._index[_key(each)] for each in tried]] = math.inf
        nearest = int(np.argmin(distances))
        if math.isinf(distances[nearest]):
            raise UsageError(f"table {self.table.plan.name}: a search of more than {len(distances)} configurations")
        return self._params[nearest]

    def curve(self, params: Params, seed: int, *, amplified: bool = True) -> Curve:
        curves = self._curves if amplified else self._twins
        return np.asarray(curves[self._index[_key(params)], self._drawn(seed)], np.float64)

    def trained_with(self, seed: int) -> int:
        return self.table.plan.seed(self._drawn(seed))

    def _drawn(self, seed: int) -> int:
        return derive_seed("drawn", seed) % self.table.complete_seeds

    def mean(self, params: Params) -> float:
        return float(self._means[self._index[_key(params)]])

    # ------------------------------------------------------------ the table as arrays

    @property
    def _params(self) -> list[dict[str, Any]]:
        return self.table.plan.params[ARMS.index(self.arm)]

    @cached_property
    def _index(self) -> dict[tuple[Any, ...], int]:
        return {_key(each): index for index, each in enumerate(self._params)}

    @cached_property
    def _curves(self) -> npt.NDArray[np.float32]:
        """(C, complete S, E)."""
        return self.table.values[ARMS.index(self.arm), :, : self.table.complete_seeds]

    @property
    def _twins(self) -> npt.NDArray[np.float32]:
        """Of the same configurations without amplification."""
        return self.table.values[ARMS.index("monotone"), :, : self.table.complete_seeds]

    @cached_property
    def finals(self) -> npt.NDArray[np.float64]:
        """(C, complete S): the value of every run at its last epoch; the metric's worst if it diverged."""
        return np.nan_to_num(self._curves[..., -1].astype(np.float64), nan=worst(self))

    @cached_property
    def _means(self) -> npt.NDArray[np.float64]:
        return np.asarray(self.finals.mean(axis=1))

    @cached_property
    def _units(self) -> npt.NDArray[np.float64]:
        return np.array([self._unit(each) for each in self._params])

    def _unit(self, params: Params) -> npt.NDArray[np.float64]:
        return np.array([unit(params[name], domain) for name, domain in self._space.items()])

    @cached_property
    def _space(self) -> dict[str, Domain]:
        return self.table.plan.spec.space(self.arm)


def unit(value: Any, domain: Domain) -> float:
    """A value of a range scaled to [0, 1]. Raises ValueError for a choice: its values have no distance."""
    if isinstance(domain, Choice):
        raise ValueError(f"{domain}: recorded tables have ranges only")
    scale = math.log if domain.log else float
    return (scale(value) - scale(domain.low)) / (scale(domain.high) - scale(domain.low))


def _key(params: Params) -> tuple[Any, ...]:
    return tuple(sorted(params.items()))
