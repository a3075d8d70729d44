"""`confirm.seeds = "auto"`: a group-sequential test. Each interim analysis of the paired differences gives a verdict or
"go on"; the error rate holds over all analyses together.

Symbols: x_1, x_2, ... are paired differences, independent, normal, mean delta; t_n is the t statistic of the first n;
analyses are at n_1 < ... < n_K; alpha is one-sided. Analysis k spends f(n_k / n_K) - f(n_{k-1} / n_K) of alpha, f(s) =
alpha * s**2 (Lan and DeMets 1983; this f is the power family of Kim and DeMets 1987). Against the
O'Brien-Fleming-like f this costs 2 points of power at a difference of 0.75 sd and 20 pairs, and stops at 7 pairs
instead of 8.5 at 2 sd (measured).

The boundaries are exact at every n, not normal approximations. With delta = 0, R_n = sum(x) / sqrt(sum(x**2)) =
sqrt(n) * cos(theta_n) is independent of sum(x**2), hence a Markov chain: with tan(phi) = x_{n+1} / sqrt(sum(x**2)), so
that sqrt(n) * tan(phi) is a draw of t with n degrees of freedom,

    R_{n+1} = R_n * cos(phi) + sin(phi) = sqrt(R_n**2 + 1) * cos(phi - psi),    psi = atan2(1, R_n)
    t_n     = sqrt(n - 1) * cot(theta_n)

and the probability of continuing is propagated from n to n + 1 over cells of theta (recursion of Armitage, McPherson
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
_MIN_SPENT = 1e-11  # an analysis that may spend less than this cannot stop
_LARGER_IS_BETTER = Metric("value", direction="maximize")


@dataclass(frozen=True)
class Plan:
    """When to analyse, and by what criteria. Raises ValueError, one line, for an impossible plan."""

    analyses: tuple[int, ...]
    """Numbers of pairs at the interim analyses, rising, from 2 on; the last is the maximum."""
    margin: float
    """Differences below it count as equivalent, in the metric's own unit; 0: nothing is equivalent."""
    confidence: float = 0.95
    comparisons: int = 1
    """Comparisons that are made together (arms other than the baseline); each gets its share of alpha (Bonferroni)."""
    metric: Metric = _LARGER_IS_BETTER

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.analyses, self.analyses[1:], strict=False))
        if not self.analyses or self.analyses[0] < 2 or not rising:
            raise ValueError(f"analyses = {self.analyses}, allowed: rising numbers of pairs, from 2 on")
        if not self.margin >= 0:
            raise ValueError(f"margin = {self.margin}, allowed: at least 0")
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence = {self.confidence}, allowed: above 0.5, below 1")
        if self.comparisons < 1:
            raise ValueError(f"comparisons = {self.comparisons}, allowed: at least 1")

    @property
    def alpha(self) -> float:
        """Two-sided level of each comparison, over all its analyses."""
        return (1 - self.confidence) / self.comparisons


@dataclass(frozen=True)
class Decision:
    """The result of the interim analyses of one comparison so far."""

    verdict: InterimVerdict
    """"go on" until an analysis settles it; "inconclusive" if the last one did not."""
    n: int
    """Pairs at the deciding analysis: the one that settled it, otherwise the latest; 0 before the first."""
    looks: int
    """Analyses up to and including that one."""
    planned: int
    """Maximum number of analyses; the correction covers all of them, whether or not they take place."""
    difference: float | None
    """Mean of these n. If an early analysis settled it, it is biased away from 0: analyses stop on extremes."""
    interval: Interval | None
    """Repeated confidence interval (Jennison and Turnbull 1989): it covers the true difference with the plan's
    confidence, at whichever analysis the test stops. None before the first one, and if this one could not stop."""
    p_value: float | None
    """Two-sided, by stagewise ordering (Tsiatis, Rosner and Mehta 1984), times the comparisons; None for "go on" and
    "equivalent"."""
    next_look: int | None
    """Pairs at the next analysis; None when it is settled."""
    equivalence_interval: Interval | None = None
    """It lies within the margin exactly if this analysis finds equivalence. None if it could not."""
    deciding: Interval | None = None
    """The interval that gives the verdict (see `Comparison.deciding`): for "equivalent" that of the two one-sided tests
    at this analysis, otherwise `interval`."""


def next_analysis(differences: Sequence[float], plan: Plan) -> Decision:
    """The decision after the pairs so far, in the order in which they were planned.

    Analyses every planned number of pairs that is reached; the first analysis that settles the question is final. Pairs
    beyond it, or between two analyses, do not count. Pure: the same differences always give the same decision.
    """
    decision = Decision("go on", 0, 0, len(plan.analyses), None, None, None, plan.analyses[0])
    for index, n in enumerate(plan.analyses):
        if n > len(differences) or decision.verdict != "go on":
            return decision
        decision = _analysis(differences, plan, index)
    return decision


def latest_analysis(differences: Sequence[float], plan: Plan) -> Decision:
    """The decision by the latest analysis alone, regardless of earlier ones.

    For values that did not decide when to stop (the test split, if the analyses were on validation): the repeated
    interval covers at any analysis, however it was chosen.
    """
    reached = [index for index, n in enumerate(plan.analyses) if n <= len(differences)]
    return _analysis(differences, plan, reached[-1]) if reached else next_analysis(differences, plan)


def boundaries(analyses: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """One-sided critical values of t at each analysis; infinite if it cannot stop."""
    return tuple(_analysis_at(analyses, alpha, index).boundary for index in range(len(analyses)))


def nominal_level(plan: Plan) -> float:
    """Two-sided level at which a t-test alone would be as strict as the plan's last analysis."""
    return 2 * _tail(boundaries(plan.analyses, plan.alpha / 2)[-1], plan.analyses[-1])


# ---------------------------------------------------------------- one analysis


def _analysis(differences: Sequence[float], plan: Plan, index: int) -> Decision:
    """The decision of the analysis at plan.analyses[index] by itself."""
    n = plan.analyses[index]
    d = np.asarray(differences[:n], dtype=float)
    mean, error = float(d.mean()), deviation(d) / math.sqrt(n)
    differ = _analysis_at(plan.analyses, plan.alpha / 2, index).boundary
    equal = _analysis_at(plan.analyses, plan.alpha, index).boundary if plan.margin else math.inf
    if does_not_vary(d):
        # Equal differences leave t without a scale; the sign test replaces it, at the level of this analysis.
        differs = bool(mean) and 2.0 ** (1 - n) <= 2 * _tail(differ, n)
        equals = abs(mean) < plan.margin and 2.0**-n <= _tail(equal, n)
        interval = (mean, mean) if 2.0 ** (1 - n) <= 2 * _tail(differ, n) else None
        inner = (mean, mean) if 2.0**-n <= _tail(equal, n) else None
    else:
        differs = abs(mean) > differ * error
        equals = abs(mean) + equal * error < plan.margin
        interval, inner = (_around(mean, bound * error) for bound in (differ, equal))
    last = index == len(plan.analyses) - 1
    verdict = _verdict(plan.metric.as_gain(mean), equals, differs, last)
    p_value = _p_value(d, plan, index) if verdict in ("better", "worse", "inconclusive") else None
    following = plan.analyses[index + 1] if verdict == "go on" else None
    deciding = inner if verdict == "equivalent" else interval
    return Decision(verdict, n, index + 1, len(plan.analyses), mean, interval, p_value, following, inner, deciding)


def _around(mean: float, half: float) -> Interval | None:
    return (mean - half, mean + half) if math.isfinite(half) else None


def _verdict(gain: float, equals: bool, differs: bool, last: bool) -> InterimVerdict:
    """Equivalence first, as for a fixed number of pairs."""
    if equals:
        return "equivalent"
    if differs:
        return "better" if gain > 0 else "worse"
    return "inconclusive" if last else "go on"


def _p_value(d: Array, plan: Plan, index: int) -> float:
    """Null probability of stopping at an earlier analysis, or at this one with |t| at least as large; two-sided."""
    if does_not_vary(d):
        return min(1.0, plan.comparisons * (2.0 ** (1 - len(d)) if d.any() else 1.0))
    t = abs(float(d.mean())) / (deviation(d) / math.sqrt(len(d)))
    analysis = _analysis_at(plan.analyses, plan.alpha / 2, index)
    return min(1.0, plan.comparisons * 2 * (analysis.spent + analysis.before.beyond(_theta(t, len(d)))))


def _tail(t: float, n: int) -> float:
    """P(t_n > t) without interim analyses."""
    return float(special.stdtr(n - 1, -t))


# ---------------------------------------------------------------- boundaries


class _BeforeFirst(NamedTuple):
    """m pairs before the first analysis: the next t has its plain distribution."""

    m: int

    def beyond(self, theta: float) -> float:
        """Probability of theta_{m+1} below theta, that is, of t above a bound."""
        return _tail(_t(theta, self.m + 1), self.m + 1)


class _Continued(NamedTuple):
    """The probability of having continued until m pairs, in cells of theta."""

    m: int
    masses: Array
    ratios: Array
    """R_m at the middle of each cell."""

    def beyond(self, theta: float) -> float:
        """Probability of continuing until m and then having theta_{m+1} below theta."""
        psi = np.arctan2(1.0, self.ratios)
        far = np.sqrt((self.ratios**2 + 1) / (self.m + 1))
        reach = np.arccos(np.clip(math.cos(theta) / far, -1, 1))
        low, high = np.clip(psi - reach, -math.pi / 2, math.pi / 2), np.minimum(psi + reach, math.pi / 2)
        chance = special.stdtr(self.m, math.sqrt(self.m) * np.tan(high))
        chance -= special.stdtr(self.m, math.sqrt(self.m) * np.tan(low))
        return float((self.masses * chance).sum())


def _step(before: _BeforeFirst | _Continued, settled: float = 0.0) -> _Continued:
    """Adds one pair; paths with theta below `settled` stop."""
    edges, m = np.linspace(settled, math.pi, CELLS + 1), before.m + 1
    masses = np.diff([before.beyond(edge) for edge in edges])
    return _Continued(m, masses, math.sqrt(m) * np.cos((edges[1:] + edges[:-1]) / 2))


class _Analysis(NamedTuple):
    """One analysis: its boundary, the alpha spent before it, and the distribution on reaching it."""

    boundary: float
    spent: float
    before: _BeforeFirst | _Continued


@lru_cache(maxsize=1024)
def _analysis_at(analyses: tuple[int, ...], alpha: float, index: int) -> _Analysis:
    """Analysis `index`, after those before it; no later one is computed."""
    spent, continued = _continued(analyses, alpha, index) if index else (0.0, _BeforeFirst(analyses[0] - 1))
    theta = _boundary_angle(continued, alpha * (analyses[index] / analyses[-1]) ** 2 - spent)
    return _Analysis(_t(theta, analyses[index]), spent, continued)


def _continued(analyses: tuple[int, ...], alpha: float, index: int) -> tuple[float, _Continued]:
    """The alpha spent before analysis `index`, and the probability of having continued until one pair before it."""
    earlier = _analysis_at(analyses, alpha, index - 1)
    theta = _theta(earlier.boundary, analyses[index - 1])
    continued = _step(earlier.before, theta)
    while continued.m < analyses[index] - 1:
        continued = _step(continued)
    return earlier.spent + earlier.before.beyond(theta), continued


def _boundary_angle(continued: _BeforeFirst | _Continued, share: float) -> float:
    """theta of the boundary at which the next analysis spends this share of alpha; 0 if that is too little."""
    if share < _MIN_SPENT:
        return 0.0
    return float(optimize.brentq(lambda theta: continued.beyond(theta) - share, 0.0, math.pi, xtol=1e-12))


def _t(theta: float, n: int) -> float:
    return math.sqrt(n - 1) / math.tan(theta) if theta > 0 else math.inf


def _theta(t: float, n: int) -> float:
    return math.atan2(math.sqrt(n - 1), t) if math.isfinite(t) else 0.0
