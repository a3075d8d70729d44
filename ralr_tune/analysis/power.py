"""The smallest difference that a comparison can detect, and how many more pairs a verdict needs.

Symbols: n pairs of differences with mean delta and standard deviation sigma, estimated as s; alpha is the two-sided
level after correction; t_c the two-sided critical value at n - 1 degrees of freedom. The t statistic then has a
noncentral t distribution with noncentrality delta * sqrt(n) / sigma (Cohen 1988, ch. 2; Johnson and Welch 1940).
If all blocks of an arm are judged on the same seeds, what the seeds add to the error is a floor of the standard error
that more blocks do not reduce; the critical value is then weighted by both, while `comparison.paired_test` may take a
slightly larger one, and the spread of the standard error is taken to be that of n pairs alone (our choice)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from ralr_tune.analysis.comparison import Comparison, Interval, Verdict, What

POWER = 0.8  # the convention of Cohen 1988, ch. 2
MAX_PAIRS = 1000  # pairs; a verdict that needs more is out of reach
SPREAD_CONFIDENCE = 0.95  # of the interval for the standard deviation
ENOUGH_PAIRS = 4  # below, the interval for the standard deviation spans more than a factor of 10

_NODES = (np.arange(400) + 0.5) / 400
"""Quadrature nodes (probabilities) for the distribution of s; more of them change no power by 0.001."""

Counts = tuple[int, int | None]
"""From, to; None: more than MAX_PAIRS."""


@dataclass(frozen=True)
class ErrorFloor:
    """A standard error that more pairs do not reduce, and its degrees of freedom."""

    error: float
    freedom: int


@dataclass(frozen=True)
class DetectableEffect:
    """The minimum detectable effect of one comparison with its pairs, and how many more pairs a verdict needs."""

    what: What
    arm: str
    against: str
    n: int
    """Pairs: seeds for "configuration", blocks for "arm"."""
    alpha: float
    """Two-sided level of this one comparison, after correction for comparisons and interim analyses."""
    spread: float
    """Standard deviation of the paired differences, in the metric's own unit."""
    spread_interval: Interval
    """95%, for normal differences: from n = 2 it spans a factor of 72, from n = 5 one of 4.8."""
    visible: float
    """Smallest true difference that n pairs call better or worse in 80% of studies."""
    visible_interval: Interval
    """The same at both ends of `spread_interval`."""
    more_to_differ: int | None
    """Further pairs for better or worse, in 80% of studies, if the observed difference is the true one. None: above
    MAX_PAIRS, or the difference is zero."""
    more_to_differ_range: Counts | None
    """The same at both ends of `spread_interval`; None if even the smallest spread needs more than MAX_PAIRS."""
    more_to_equal: int | None
    """Further pairs for equivalent within the margin. None: above MAX_PAIRS, or outside the margin."""
    more_to_equal_range: Counts | None
    floor: ErrorFloor | None = None
    """From the seeds on which all blocks were judged."""

    @property
    def judged(self) -> bool:
        """Whether there are enough pairs to judge what they can detect."""
        return self.n >= ENOUGH_PAIRS

    @property
    def more(self) -> tuple[int, Counts] | None:
        """Further pairs for the nearer of the two verdicts, and their range; None if neither can be reached."""
        verdicts = ((self.more_to_differ, self.more_to_differ_range), (self.more_to_equal, self.more_to_equal_range))
        known = [(count, span) for count, span in verdicts if count is not None and span is not None]
        return min(known, default=None, key=lambda pair: pair[0])


def tells(n: int, verdict: Verdict) -> bool:
    """Whether n pairs are enough for an interval that says something, or there is a verdict."""
    return n >= ENOUGH_PAIRS or verdict != "inconclusive"


def detectable_effect(
    made: Comparison, spread: float, *, margin: float, alpha: float, floor: ErrorFloor | None = None
) -> DetectableEffect | None:
    """What `made`, whose differences have this spread, can detect; None below two pairs or without spread."""
    if made.n < 2 or not spread > 0:
        return None
    lowest, highest = spread_interval(spread, made.n)
    detects = partial(detectable_difference, n=made.n, alpha=alpha, floor=floor)
    differs = partial(pairs_to_differ, difference=made.difference, alpha=alpha, floor=floor)
    equals = partial(pairs_to_equal, difference=made.difference, margin=margin, alpha=alpha, floor=floor)
    return DetectableEffect(
        what=made.what,
        arm=made.arm,
        against=made.against,
        n=made.n,
        alpha=alpha,
        spread=spread,
        spread_interval=(lowest, highest),
        visible=detects(spread),
        visible_interval=(detects(lowest), detects(highest)),
        more_to_differ=_more(differs(spread), made.n),
        more_to_differ_range=_range(differs, (lowest, highest), made.n),
        more_to_equal=_more(equals(spread), made.n),
        more_to_equal_range=_range(equals, (lowest, highest), made.n),
        floor=floor,
    )


def _range(pairs: Callable[[float], int | None], spreads: Interval, n: int) -> Counts | None:
    fewest = _more(pairs(spreads[0]), n)
    return None if fewest is None else (fewest, _more(pairs(spreads[1]), n))


def _more(pairs: int | None, n: int) -> int | None:
    """Further pairs; at least one, because the existing ones gave no verdict."""
    return None if pairs is None else max(1, pairs - n)


def spread_interval(spread: float, n: int, confidence: float = SPREAD_CONFIDENCE) -> Interval:
    """Interval for sigma from s of n normal differences: s * sqrt(nu / chi2_q), nu = n - 1."""
    nu = n - 1
    low, high = 2 * special.gammaincinv(nu / 2, np.array([1 + confidence, 1 - confidence]) / 2)
    return spread * math.sqrt(nu / low), spread * math.sqrt(nu / high)


def spread_of(interval: Interval, n: int, confidence: float) -> float:
    """The standard deviation of n paired differences, from the t interval of their mean."""
    return (interval[1] - interval[0]) / 2 * math.sqrt(n) / _critical((1 - confidence) / 2, n)


def power_to_differ(difference: float, spread: float, n: int, alpha: float, floor: ErrorFloor | None = None) -> float:
    """Probability that n pairs detect a true difference: P(|T| > t_c), T noncentral t.

    A mixture over s, by quadrature: scipy's `nct` gives NaN at one degree of freedom and a large noncentrality.
    """
    error, critical = _scale(spread, n, alpha / 2, floor)
    shift, half = abs(difference) / error, critical * _relative_spreads(n)
    return float((special.ndtr(shift - half) + special.ndtr(-shift - half)).mean())


def power_to_equal(
    difference: float, spread: float, n: int, margin: float, alpha: float, floor: ErrorFloor | None = None
) -> float:
    """Probability that n pairs pass both one-sided tests (TOST) at alpha each (Phillips 1990, by quadrature over s).

    P(-margin + t s' < mean < margin - t s') with s' = s / sqrt(n), averaged over the chi distribution of s.
    """
    error, critical = _scale(spread, n, alpha, floor)
    half = critical * error * _relative_spreads(n)
    upper, lower = (margin - half - difference) / error, (-margin + half - difference) / error
    inside = special.ndtr(upper) - special.ndtr(lower)
    return float(np.where(half < margin, inside, 0.0).mean())


def _scale(spread: float, n: int, tail: float, floor: ErrorFloor | None) -> tuple[float, float]:
    """Standard error of the mean of n pairs, and the value that its t exceeds with this probability."""
    error = spread / math.sqrt(n)
    if floor is None:
        return error, _critical(tail, n)
    both = math.hypot(error, floor.error)
    share = (floor.error / both) ** 2
    return both, (1 - share) * _critical(tail, n) + share * _critical(tail, floor.freedom + 1)


@lru_cache(maxsize=MAX_PAIRS)
def _relative_spreads(n: int) -> npt.NDArray[np.float64]:
    """Equally likely values of s / sigma for n differences; shape (400,)."""
    return np.asarray(np.sqrt(2 * special.gammaincinv((n - 1) / 2, _NODES) / (n - 1)))


def _critical(tail: float, n: int) -> float:
    """The value that t of n differences exceeds with this probability."""
    return -float(special.stdtrit(n - 1, tail))


def detectable_difference(
    spread: float, n: int, alpha: float, power: float = POWER, floor: ErrorFloor | None = None
) -> float:
    """Smallest true difference that n pairs call better or worse with this power."""
    if floor is None:
        return spread * _detectable_in_spreads(n, alpha, power)
    error, critical = _scale(spread, n, alpha / 2, floor)
    return _solved(lambda size: power_to_differ(size, spread, n, alpha, floor) - power, (5 + 3 * critical) * error)


@lru_cache(maxsize=256)
def _detectable_in_spreads(n: int, alpha: float, power: float) -> float:
    """The same in standard deviations."""
    upper = (5 + 3 * _critical(alpha / 2, n)) / math.sqrt(n)
    return _solved(lambda size: power_to_differ(size, 1.0, n, alpha) - power, upper)


def _solved(shortfall: Callable[[float], float], upper: float) -> float:
    return float(optimize.brentq(shortfall, 0.0, upper))


def pairs_to_differ(spread: float, *, difference: float, alpha: float, floor: ErrorFloor | None = None) -> int | None:
    """Fewest pairs that call this true difference with 80% power; None above MAX_PAIRS."""
    if difference == 0:
        return None
    return _min_pairs(lambda n: power_to_differ(difference, spread, n, alpha, floor))


def pairs_to_equal(
    spread: float, *, difference: float, margin: float, alpha: float, floor: ErrorFloor | None = None
) -> int | None:
    """Fewest pairs that call this difference equivalent with 80% power; None above MAX_PAIRS or outside the margin."""
    if abs(difference) >= margin:
        return None
    return _min_pairs(lambda n: power_to_equal(difference, spread, n, margin, alpha, floor))


def _min_pairs(power_of: Callable[[int], float]) -> int | None:
    """The smallest n in 2..MAX_PAIRS with enough power, by bisection: power grows with n."""
    low, high = 1, MAX_PAIRS
    if power_of(high) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= POWER else (middle, high)
    return high
