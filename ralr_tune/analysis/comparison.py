"""One configuration against another over paired seeds, or one arm against another over paired blocks of search.

Symbols: d, shape (n,), are the paired differences (this minus that, in the metric's own unit); alpha = 1 - confidence;
m is the number of comparisons that are made together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from ralr_tune.metric import Metric

What = Literal["configuration", "arm"]
Verdict = Literal["better", "worse", "equivalent", "inconclusive"]
Interval = tuple[float, float]

MIN_SEEDS = 3
"""Minimum number of seeds, the same for all blocks, for a verdict on arms."""

# Differences whose relative spread is a rounding error count as constant.
_ROUNDING = 1e-9
_MIN_P = 1e-60  # a smaller probability counts as 0


class Pairs(NamedTuple):
    """The paired differences of one comparison: `arm` minus `against`."""

    what: What
    arm: str
    against: str
    differences: Sequence[float]
    by_seed: Sequence[float] = ()
    """For arms whose blocks were judged on the same seeds: the differences by seed, each averaged over the blocks."""
    run_error: float = 0.0
    """The standard error of the mean from the noise of single runs, which `differences` and `by_seed` both contain."""


@dataclass(frozen=True)
class Comparison:
    """What the data say about `arm` against `against`; the fields are the contract of `report --json`."""

    what: What
    """"configuration": seeds of two fixed configurations; "arm": winners of independent blocks of search."""
    arm: str
    against: str
    difference: float
    """Mean of arm minus against, in the metric's own unit."""
    interval: Interval | None
    """Bonferroni-adjusted, so that all intervals made together hold at `confidence`; None if n is too small."""
    confidence: float
    p_value: float | None
    """Two-sided, Holm-adjusted over the comparisons made together; None if n < 2."""
    n: int
    """Pairs: seeds for "configuration", blocks for "arm"."""
    verdict: Verdict
    equivalence_interval: Interval | None = None
    """It lies within the margin exactly if the verdict is "equivalent": both one-sided tests at the comparison's level
    (90% for a single comparison at 95%). None if n is too small, or if nothing counts as equivalent."""
    deciding: Interval | None = None
    """The interval that gives the verdict: "equivalent" exactly if it lies within the margin (that of the two one-sided
    tests, 90% at a confidence of 95%), "better" or "worse" exactly if it excludes 0 (at the level of Holm's step),
    otherwise `interval`. None if n is too small."""


class PairedTest(NamedTuple):
    """The uncorrected figures of one set of paired differences."""

    difference: float
    interval: Interval | None
    p_value: float | None
    p_equivalent: float | None
    """The larger p-value of the two one-sided tests against -margin and +margin (TOST, Schuirmann 1987)."""


def paired_test(
    differences: Sequence[float],
    *,
    margin: float,
    confidence: float,
    by_seed: Sequence[float] = (),
    run_error: float = 0.0,
) -> PairedTest:
    """Paired t-test, its interval and the test of equivalence.

    n < 2 gives the difference alone. Differences that do not vary leave t without a scale (it would claim certainty
    from two equal numbers), so the sign test, which needs none, replaces it.

    `by_seed`: if every block was judged on the same seeds, the effect of a seed is the same in every block, and the
    spread between blocks does not show it. Then blocks and seeds both count as samples: their squared standard errors
    add up, less that of the single runs (`run_error`), which is in both (variance components of a two-way layout with
    one run in each cell: Searle, Casella and McCulloch 1992, ch. 4), but never to less than either. Without `run_error`
    this is min F' (Clark 1973). The critical value is the mean of both t's, weighted by the squared errors (Cochran and
    Cox 1950, sec. 4.14; Satterthwaite's degrees of freedom err with few seeds) with or without what is in both,
    whichever gives the larger value (our choice: either alone errs in up to 6%). Fewer than three such seeds give the
    difference alone: two often show nothing of an amplification that occurs in one run of five.
    """
    if not differences:
        raise ValueError("differences: empty, allowed: at least one pair")
    samples = [np.asarray(sample, dtype=float) for sample in (differences, by_seed) if len(sample)]
    mean = float(samples[0].mean())
    if len(samples[0]) < 2 or 0 < len(by_seed) < MIN_SEEDS:
        return PairedTest(mean, None, None, None)
    if all(does_not_vary(sample) for sample in samples):
        return _sign_test(mean, len(differences), margin, confidence)
    return _tested(mean, _Weighted.of(samples, run_error), margin, confidence)


def welch_test(own: Sequence[float], other: Sequence[float], *, margin: float, confidence: float) -> PairedTest:
    """The same for two independent samples of unequal variance (Welch 1947), own minus other.

    With fewer than two values on a side, or if neither side varies, it gives the difference alone, without a sign test.
    """
    samples = [np.asarray(sample, dtype=float) for sample in (own, other)]
    if not all(len(sample) for sample in samples):
        raise ValueError("samples: one is empty, allowed: at least one value each")
    mean = float(samples[0].mean() - samples[1].mean())
    if min(map(len, samples)) < 2 or all(does_not_vary(sample) for sample in samples):
        return PairedTest(mean, None, None, None)
    errors = [_error(sample) for sample in samples]
    error = math.hypot(*errors)
    inverse_freedom = sum((part / error) ** 4 / (len(each) - 1) for part, each in zip(errors, samples, strict=True))
    return _tested(mean, _Weighted(error, [[1.0]], [1 / inverse_freedom]), margin, confidence)


class _Weighted(NamedTuple):
    """A standard error, and the t distributions whose weighted quantiles give its critical values."""

    error: float
    weightings: Sequence[Sequence[float]]
    """Weights of the distributions; of several weightings the one with the larger quantile counts."""
    freedoms: Sequence[float]

    @classmethod
    def of(cls, samples: Sequence[npt.NDArray[np.float64]], run_error: float) -> _Weighted:
        """For blocks, or for blocks and seeds (see `paired_test`)."""
        errors = np.array([_error(sample) for sample in samples])
        largest = float(errors.max())
        squares = (errors / largest) ** 2
        common = min(run_error / largest, 1.0, *(errors / largest)) ** 2 if len(samples) > 1 else 0.0
        parts = [each for each in (squares, squares - common) if each.any()]
        error = largest * math.sqrt(float(squares.sum()) - common)
        return cls(error, [(each / each.sum()).tolist() for each in parts], [len(each) - 1 for each in samples])

    def quantile(self, tail: float) -> float:
        """The value that is exceeded with this probability."""
        quantiles = [-float(special.stdtrit(freedom, tail)) for freedom in self.freedoms]
        return max(sum(w * q for w, q in zip(weights, quantiles, strict=True)) for weights in self.weightings)

    def tail(self, t: float) -> float:
        """The probability to exceed t."""
        if len(self.freedoms) == 1:
            return float(special.stdtr(self.freedoms[0], -t))
        if t < 0:
            return 1 - self.tail(-t)
        if self.quantile(_MIN_P) <= t:
            return 0.0
        found = optimize.brentq(lambda log: self.quantile(math.exp(log)) - t, math.log(_MIN_P), math.log(0.5))
        return math.exp(float(found))


def seed_error(of_blocks: float, of_seeds: float, of_runs: float) -> float:
    """What the seeds add to the standard error of the mean over blocks: their own, less what both have in common."""
    common = min(of_blocks, of_seeds, of_runs)
    return math.sqrt((of_seeds - common) * (of_seeds + common))


def run_error(runs: Sequence[Sequence[float]], count: int) -> float:
    """The standard error of the mean of `count` runs from what is neither of their block nor of their seed.

    `runs`, shape (blocks, seeds): those with a seed that all blocks have. 0 for fewer than two blocks or seeds.
    """
    d = np.asarray(runs, dtype=float)
    if min(d.shape) < 2:
        return 0.0
    largest = float(np.abs(d).max()) or 1.0  # its square may overflow
    rest = (d - d.mean(axis=0) - d.mean(axis=1, keepdims=True) + d.mean()) / largest
    return largest * math.sqrt(float((rest**2).sum()) / ((d.shape[0] - 1) * (d.shape[1] - 1) * count))


def _error(sample: npt.NDArray[np.float64]) -> float:
    """Standard error of the mean."""
    return deviation(sample) / math.sqrt(len(sample))


def _tested(difference: float, scale: _Weighted, margin: float, confidence: float) -> PairedTest:
    half = scale.quantile((1 - confidence) / 2) * scale.error
    return PairedTest(
        difference=difference,
        interval=(difference - half, difference + half),
        p_value=2 * scale.tail(abs(difference) / scale.error),
        p_equivalent=scale.tail((margin - abs(difference)) / scale.error),
    )


def does_not_vary(d: npt.NDArray[np.float64]) -> bool:
    """Whether all differences are equal, up to rounding."""
    return deviation(d) <= _ROUNDING * float(np.abs(d).max())


def deviation(d: npt.NDArray[np.float64]) -> float:
    """Sample standard deviation, computed in units of the largest value, because its square may overflow."""
    largest = float(np.abs(d).max())
    return largest * float((d / largest).std(ddof=1)) if largest else 0.0


def _sign_test(difference: float, n: int, margin: float, confidence: float) -> PairedTest:
    """n equal differences: [d, d] covers the median with 1 - 2 ** (1 - n), and n equal signs have p = 2 ** (1 - n)."""
    two_sided = 2.0 ** (1 - n)
    return PairedTest(
        difference=difference,
        interval=(difference, difference) if two_sided <= 1 - confidence else None,
        p_value=two_sided if difference else 1.0,
        p_equivalent=2.0**-n if abs(difference) < margin else 1.0,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979), in the order given."""
    adjusted, floor = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """The level that decides each test in Holm's procedure, in the order given.

    It is alpha / (m - rank) up to the first test that is not rejected, and that test's level for all after it: a test
    is rejected exactly if its p-value is at most its level.
    """
    levels, rejecting, level = [alpha] * len(p_values), True, alpha
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if rejecting:
            level = alpha / (len(p_values) - rank)
            rejecting = p_values[index] <= level
        levels[index] = level
    return levels


def compare(family: Iterable[Pairs], *, margin: float, confidence: float, metric: Metric) -> tuple[Comparison, ...]:
    """All comparisons that are made together, corrected together, in the order given.

    p-values (of difference and of equivalence) are corrected by Holm, intervals by Bonferroni. An interval may
    therefore just touch 0 although Holm, the sharper of the two, already finds a difference.
    """
    members = list(family)
    tested = sum(len(pairs.differences) > 1 for pairs in members)
    joint = 1 - (1 - confidence) / max(1, tested)
    tests = [_paired_test(pairs, margin, joint) for pairs in members]
    alpha = 1 - confidence
    different = _Corrected.of([test.p_value for test in tests], alpha)
    equivalent = _Corrected.of([test.p_equivalent for test in tests], alpha)
    return tuple(
        _compared(pairs, test, differs, equals, _Criteria(margin, confidence, metric))
        for pairs, test, differs, equals in zip(members, tests, different, equivalent, strict=True)
    )


def _paired_test(pairs: Pairs, margin: float, confidence: float) -> PairedTest:
    return paired_test(
        pairs.differences, margin=margin, confidence=confidence, by_seed=pairs.by_seed, run_error=pairs.run_error
    )


class _Criteria(NamedTuple):
    """What all comparisons made together share."""

    margin: float
    confidence: float
    metric: Metric


class _Corrected(NamedTuple):
    """The p-value of one of several tests, adjusted by Holm, and the level of the step that decides this test."""

    p_value: float | None
    level: float

    @classmethod
    def of(cls, p_values: Sequence[float | None], alpha: float) -> list[_Corrected]:
        """Missing p-values stay None and do not count."""
        known = [p for p in p_values if p is not None]
        corrected = iter(zip(holm(known), holm_levels(known, alpha), strict=True))
        return [cls(None, alpha) if p is None else cls(*next(corrected)) for p in p_values]


def _compared(
    pairs: Pairs, test: PairedTest, differs: _Corrected, equals: _Corrected, criteria: _Criteria
) -> Comparison:
    margin, confidence, metric = criteria
    verdict = _verdict(metric.as_gain(test.difference), differs.p_value, equals.p_value, 1 - confidence)
    levels = {"equivalent": 2 * equals.level, "better": differs.level, "worse": differs.level}
    deciding = test.interval
    if verdict in levels:
        at = 1 - levels[verdict]
        deciding = _paired_test(pairs, margin, at).interval
    return Comparison(
        what=pairs.what,
        arm=pairs.arm,
        against=pairs.against,
        difference=test.difference,
        interval=test.interval,
        confidence=confidence,
        p_value=differs.p_value,
        n=len(pairs.differences),
        verdict=verdict,
        equivalence_interval=_equivalence_interval(pairs, margin, equals.level),
        deciding=deciding,
    )


def _equivalence_interval(pairs: Pairs, margin: float, level: float) -> Interval | None:
    """Both one-sided tests at `level` as an interval (Schuirmann 1987)."""
    if not margin:
        return None
    return _paired_test(pairs, margin, 1 - 2 * level).interval


def compare_unpaired(
    arms: tuple[str, str],
    samples: tuple[Sequence[float], Sequence[float]],
    *,
    margin: float,
    confidence: float,
    metric: Metric,
) -> Comparison:
    """One arm against another over independent searches of each: a single comparison, uncorrected."""
    test = welch_test(*samples, margin=margin, confidence=confidence)
    alpha = 1 - confidence
    verdict = _verdict(metric.as_gain(test.difference), test.p_value, test.p_equivalent, alpha)
    one_sided = welch_test(*samples, margin=margin, confidence=1 - 2 * alpha)
    return Comparison(
        what="arm",
        arm=arms[0],
        against=arms[1],
        difference=test.difference,
        interval=test.interval,
        confidence=confidence,
        p_value=test.p_value,
        n=min(map(len, samples)),
        verdict=verdict,
        equivalence_interval=one_sided.interval if margin else None,
        deciding=one_sided.interval if verdict == "equivalent" else test.interval,
    )


def deciding_level(verdict: Verdict, confidence: float) -> float:
    """The confidence of the deciding interval: two one-sided tests at 5% each are a 90% interval."""
    return 2 * confidence - 1 if verdict == "equivalent" else confidence


def _verdict(gain: float, p_value: float | None, p_equivalent: float | None, alpha: float) -> Verdict:
    """Equivalence first: a real difference that is reliably below the margin is no reason to change."""
    if p_value is None or p_equivalent is None:
        return "inconclusive"
    if p_equivalent <= alpha:
        return "equivalent"
    if p_value <= alpha:
        return "better" if gain > 0 else "worse"
    return "inconclusive"
