"""`confirm.seeds = "auto"`: after each look (interim analysis) at the paired differences, a verdict or "go on"; the
error rate holds over all looks together.

Symbols: x_1, x_2, ... are paired differences, independent, normal, mean delta; t_n is the t statistic of the first
n; looks are n_1 < ... < n_K; alpha is one-sided. Look k spends f(n_k / n_K) - f(n_{k-1} / n_K) of alpha, f(s) =
alpha * s**2 (Lan and DeMets 1983; this f is the power family of Kim and DeMets 1987). Against the
O'Brien-Fleming-like f this costs 2 points of power at a difference of 0.75 sd and 20 pairs, and stops at 7 pairs
instead of 8.5 at 2 sd (measured).

The boundaries are exact at every n, not normal approximations. With delta = 0, R_n = sum(x) / sqrt(sum(x**2)) =
sqrt(n) * cos(theta_n) is independent of sum(x**2), hence a Markov chain: with tan(phi) = x_{n+1} / sqrt(sum(x**2)), so
that sqrt(n) * tan(phi) is a draw of t with n degrees of freedom,

    R_{n+1} = R_n * cos(phi) + sin(phi) = sqrt(R_n**2 + 1) * cos(phi - psi),    psi = atan2(1, R_n)
    t_n     = sqrt(n - 1) * cot(theta_n)

and the probability of going on is propagated from n to n + 1 over cells of theta (the recursion of Armitage, McPherson
and Rowe 1969, for t instead of z; the chain is this package's own, calibrated in tests/calibration).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from ralr_tune.analysis.comparison import Interval, deviation, does_not_vary
from ralr_tune.metric import Metric

Array = npt.NDArray[np.float64]
InterimVerdict = Literal["better", "worse", "equivalent", "inconclusive", "go on"]

CELLS = 400  # of theta; twice as many move a boundary by at most 0.3%
_LEAST = 1e-11  # a look that may spend less than this cannot stop
_LARGER_IS_BETTER = Metric("value", direction="maximize")


@dataclass(frozen=True)
class Plan:
    """When to look, and how to judge. Raises ValueError, one line, for an impossible plan."""

    looks: tuple[int, ...]
    """Numbers of pairs at the looks, rising, from 2 on; the last is the maximum."""
    margin: float
    """Differences below it count as equivalent, in the metric's own unit; 0: nothing is equivalent."""
    confidence: float = 0.95
    comparisons: int = 1
    """Comparisons that are made together (arms other than the baseline); each gets its share of alpha (Bonferroni)."""
    metric: Metric = _LARGER_IS_BETTER

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.looks, self.looks[1:], strict=False))
        if not self.looks or self.looks[0] < 2 or not rising:
            raise ValueError(f"looks = {self.looks}, allowed: rising numbers of pairs, from 2 on")
        if not self.margin >= 0:
            raise ValueError(f"margin = {self.margin}, allowed: at least 0")
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence = {self.confidence}, allowed: above 0.5, below 1")
        if self.comparisons < 1:
            raise ValueError(f"comparisons = {self.comparisons}, allowed: at least 1")

    @property
    def alpha(self) -> float:
        """Two-sided level of each comparison, over all its looks."""
        return (1 - self.confidence) / self.comparisons


@dataclass(frozen=True)
class Decision:
    """What the looks so far say about one comparison."""

    verdict: InterimVerdict
    """"go on" until a look settles it; "inconclusive" if the last look did not."""
    n: int
    """Pairs at the deciding look: the one that settled it, otherwise the latest; 0 before the first."""
    looks: int
    """Looks up to and including that one."""
    planned: int
    """Maximum number of looks; the correction covers all of them, whether or not they take place."""
    difference: float | None
    """Mean of these n. If an early look settled it, it is biased away from 0: looks stop on extremes."""
    interval: Interval | None
    """Repeated confidence interval (Jennison and Turnbull 1989): it covers the true difference with the plan's
    confidence, at whichever look the test stops. None before the first look, and if this look could not stop."""
    p_value: float | None
    """Two-sided, by stagewise ordering (Tsiatis, Rosner and Mehta 1984), times the comparisons; None for "go on" and
    "equivalent"."""
    next_look: int | None
    """Pairs at the next look; None when it is settled."""


def next_analysis(differences: Sequence[float], plan: Plan) -> Decision:
    """The decision after the pairs so far, in the order in which they were planned.

    Looks at every planned number of pairs that is reached; the first look that settles the question is final. Pairs
    beyond it, or between two looks, do not count. Pure: the same differences always give the same decision.
    """
    decision = Decision("go on", 0, 0, len(plan.looks), None, None, None, plan.looks[0])
    for index, n in enumerate(plan.looks):
        if n > len(differences) or decision.verdict != "go on":
            return decision
        decision = _look(differences, plan, index)
    return decision


def latest_analysis(differences: Sequence[float], plan: Plan) -> Decision:
    """The decision by the latest look alone, regardless of earlier ones.

    For values that did not decide when to stop (the test split, if the looks were on validation): the repeated interval
    covers at any look, however it was chosen.
    """
    reached = [index for index, n in enumerate(plan.looks) if n <= len(differences)]
    return _look(differences, plan, reached[-1]) if reached else next_analysis(differences, plan)


def boundaries(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """One-sided critical values of t at each look; infinite if a look cannot stop."""
    return tuple(_stage(looks, alpha, index).boundary for index in range(len(looks)))


def nominal_level(plan: Plan) -> float:
    """Two-sided level at which a t-test alone would be as strict as the plan's last look."""
    return 2 * _tail(boundaries(plan.looks, plan.alpha / 2)[-1], plan.looks[-1])


# ---------------------------------------------------------------- one look


def _look(differences: Sequence[float], plan: Plan, index: int) -> Decision:
    """The decision of the look at plan.looks[index] by itself."""
    n = plan.looks[index]
    d = np.asarray(differences[:n], dtype=float)
    mean, error = float(d.mean()), deviation(d) / math.sqrt(n)
    differ = _stage(plan.looks, plan.alpha / 2, index).boundary
    equal = _stage(plan.looks, plan.alpha, index).boundary if plan.margin else math.inf
    if does_not_vary(d):
        # Equal differences leave t without a scale; the sign test replaces it, at the level of this look.
        differs = bool(mean) and 2.0 ** (1 - n) <= 2 * _tail(differ, n)
        equals = abs(mean) < plan.margin and 2.0**-n <= _tail(equal, n)
        interval = (mean, mean) if 2.0 ** (1 - n) <= 2 * _tail(differ, n) else None
    else:
        differs = abs(mean) > differ * error
        equals = abs(mean) + equal * error < plan.margin
        interval = (mean - differ * error, mean + differ * error) if math.isfinite(differ) else None
    last = index == len(plan.looks) - 1
    verdict = _verdict(plan.metric.as_gain(mean), equals, differs, last)
    p_value = _p_value(d, plan, index) if verdict in ("better", "worse", "inconclusive") else None
    following = plan.looks[index + 1] if verdict == "go on" else None
    return Decision(verdict, n, index + 1, len(plan.looks), mean, interval, p_value, following)


def _verdict(gain: float, equals: bool, differs: bool, last: bool) -> InterimVerdict:
    """Equivalence first, as without looks."""
    if equals:
        return "equivalent"
    if differs:
        return "better" if gain > 0 else "worse"
    return "inconclusive" if last else "go on"


def _p_value(d: Array, plan: Plan, index: int) -> float:
    """Null probability of stopping at an earlier look, or at this one with |t| at least as large; two-sided."""
    if does_not_vary(d):
        return min(1.0, plan.comparisons * (2.0 ** (1 - len(d)) if d.any() else 1.0))
    t = abs(float(d.mean())) / (deviation(d) / math.sqrt(len(d)))
    stage = _stage(plan.looks, plan.alpha / 2, index)
    return min(1.0, plan.comparisons * 2 * (stage.spent + stage.before.beyond(_theta(t, len(d)))))


def _tail(t: float, n: int) -> float:
    """P(t_n > t) without looks."""
    return float(special.stdtr(n - 1, -t))


# ---------------------------------------------------------------- boundaries


class _Unwatched(NamedTuple):
    """m pairs without a look so far: the next t has its plain distribution."""

    m: int

    def beyond(self, theta: float) -> float:
        """Probability of theta_{m+1} below theta, that is, of t above a bound."""
        return _tail(_t(theta, self.m + 1), self.m + 1)


class _Watched(NamedTuple):
    """The probability of having gone on until m pairs, in cells of theta."""

    m: int
    masses: Array
    ratios: Array
    """R_m at the middle of each cell."""

    def beyond(self, theta: float) -> float:
        """Probability of going on until m and then having theta_{m+1} below theta."""
        psi = np.arctan2(1.0, self.ratios)
        far = np.sqrt((self.ratios**2 + 1) / (self.m + 1))
        reach = np.arccos(np.clip(math.cos(theta) / far, -1, 1))
        low, high = np.clip(psi - reach, -math.pi / 2, math.pi / 2), np.minimum(psi + reach, math.pi / 2)
        chance = special.stdtr(self.m, math.sqrt(self.m) * np.tan(high))
        chance -= special.stdtr(self.m, math.sqrt(self.m) * np.tan(low))
        return float((self.masses * chance).sum())


def _step(before: _Unwatched | _Watched, settled: float = 0.0) -> _Watched:
    """Adds one pair; paths with theta below `settled` stop."""
    edges, m = np.linspace(settled, math.pi, CELLS + 1), before.m + 1
    masses = np.diff([before.beyond(edge) for edge in edges])
    return _Watched(m, masses, math.sqrt(m) * np.cos((edges[1:] + edges[:-1]) / 2))


class _Stage(NamedTuple):
    """One look: its boundary, the alpha spent before it, and the distribution on reaching it."""

    boundary: float
    spent: float
    before: _Unwatched | _Watched


@lru_cache(maxsize=1024)
def _stage(looks: tuple[int, ...], alpha: float, index: int) -> _Stage:
    """Look `index`, after those before it; no later look is computed."""
    spent, going = _gone_on(looks, alpha, index) if index else (0.0, _Unwatched(looks[0] - 1))
    theta = _settling(going, alpha * (looks[index] / looks[-1]) ** 2 - spent)
    return _Stage(_t(theta, looks[index]), spent, going)


def _gone_on(looks: tuple[int, ...], alpha: float, index: int) -> tuple[float, _Watched]:
    """The alpha spent before look `index`, and the probability of having gone on until one pair before it."""
    earlier = _stage(looks, alpha, index - 1)
    theta = _theta(earlier.boundary, looks[index - 1])
    going = _step(earlier.before, theta)
    while going.m < looks[index] - 1:
        going = _step(going)
    return earlier.spent + earlier.before.beyond(theta), going


def _settling(going: _Unwatched | _Watched, share: float) -> float:
    """theta of the boundary at which the next look spends this share of alpha; 0 if that is too little."""
    if share < _LEAST:
        return 0.0
    return float(optimize.brentq(lambda theta: going.beyond(theta) - share, 0.0, math.pi, xtol=1e-12))


def _t(theta: float, n: int) -> float:
    return math.sqrt(n - 1) / math.tan(theta) if theta > 0 else math.inf


def _theta(t: float, n: int) -> float:
    return math.atan2(math.sqrt(n - 1), t) if math.isfinite(t) else 0.0
