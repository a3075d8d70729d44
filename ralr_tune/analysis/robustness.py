"""Does an arm tolerate a badly chosen base rate? The range of rates that end close to the best, and how many runs
diverge.

Symbols: x (n,) log10 of a trial's base rate, y (n,) its score as a gain (larger is better), h the bandwidth. The
expected score at a rate, averaged over the other parameters, is a local linear regression (Fan and Gijbels 1996, ch. 2)
with a Gaussian kernel, h a tenth of the searched decades; the range is the part around its maximum that stays within
the tolerance of it. Its interval is a percentile bootstrap over trials (Efron and Tibshirani 1993, ch. 13). Our choice:

- a pruned trial gets its last score plus the median gain of complete trials from that epoch to their end;
- a diverged trial, and every worse one, counts as five tolerances below the best complete trial: how bad it is says
  nothing about how near the good rates are.

That cut hides how far scores fall, so the figure draws something else: the local median of the true scores and their
quartiles, with the same kernel. Unlike a local mean, they do not smear a cliff over its surroundings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.comparison import Interval
from ralr_tune.analysis.pruning import share_interval
from ralr_tune.metric import Metric
from ralr_tune.records import ArmRecord, Row, StudyRecord

Array = npt.NDArray[np.float64]

RATE = "lr"
MIN_TRIALS = 10  # trials with a rate, for a range
BAD = 5  # tolerances below the best
BANDWIDTH = 0.1  # of the searched decades
GRID = 201
EVERY = 2  # every so many points of the grid are drawn
MIN_SUPPORT = 3  # trials within a bandwidth of a rate, for a line there
QUARTILES = (0.25, 0.5, 0.75)
MAX_FACTOR = 100.0  # if an interval of a ratio spans more, the trials are too few to judge it
ENOUGH_FACTOR = 10.0  # the span for which the number of trials needed is estimated
DRAWS = 400
BAND = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class LocalScores:
    """The true scores of the trials near one rate, in the metric's own unit."""

    rate: float
    lower: float
    middle: float
    upper: float
    """The quartiles; diverged trials count as the metric's worst value, otherwise as the worst trial."""
    supported: bool
    """Whether at least three trials lie within a bandwidth."""


@dataclass(frozen=True)
class RateTrial:
    """One finished search trial at its base rate."""

    rate: float
    value: float | None
    """Of a pruned trial: the value at which it is expected to end. None if it diverged or nothing is known."""
    outcome: str


@dataclass(frozen=True)
class RateRange:
    """Base rates whose expected score lies within the tolerance of the best one."""

    low: float
    high: float
    best: float
    """The rate with the best expected score."""
    factor: float
    """high / low."""
    factor_interval: Interval
    """95%, bootstrap over trials."""
    low_open: bool
    high_open: bool
    """Whether the range reaches the last rate tried on this side, so that it may extend further."""
    tolerance: float
    """In the metric's own unit."""
    trials: int
    rates: tuple[float, ...]
    expected: tuple[float, ...]
    """The curve whose range this is, in the metric's own unit. Scores are cut: it does not show how far they fall."""
    local: tuple[LocalScores, ...] = ()
    """For drawing: what the trials near a rate scored."""

    @property
    def judged(self) -> bool:
        """Whether the trials determine the width."""
        return _determined(self.factor_interval)


@dataclass(frozen=True)
class Robustness:
    """The robustness of one arm."""

    arm: str
    rates: RateRange | None
    """None if the base rate was not searched, or too few trials finished."""
    diverged: int
    finished: int
    """Search trials that are complete, pruned or diverged; out of memory counts as finished, not as diverged."""
    share: float | None
    """diverged / finished, among the configurations that the search proposed; an adaptive one learns to avoid them."""
    share_interval: Interval | None
    """95%, Clopper and Pearson 1934."""
    trials: tuple[RateTrial, ...] = ()
    """Every finished trial whose rate is a searched number."""


@dataclass(frozen=True)
class Forgiveness:
    """An arm's range of good rates against the baseline's, and its share of diverged trials."""

    arm: str
    against: str
    times: float
    """This arm's factor divided by the other's; above 1: this arm forgives more."""
    interval: Interval
    """95%, both bootstrapped over their trials."""
    verdict: Literal["more", "less", "no difference shown"]
    p_diverged: float
    """Fisher's exact test of the two shares of diverged trials, uncorrected."""
    trials: int = 0
    """Of the arm with fewer."""

    @property
    def judged(self) -> bool:
        """Whether the trials determine the ratio."""
        return _determined(self.interval)

    @property
    def enough(self) -> int:
        """About how many trials each arm needs: an interval's logarithm shrinks with the root of their number."""
        low, high = self.interval
        needed = self.trials * (math.log(high / low) / math.log(ENOUGH_FACTOR)) ** 2
        return max(self.trials + 1, int(float(f"{needed:.1g}")))


def _determined(interval: Interval) -> bool:
    return interval[1] <= MAX_FACTOR * interval[0]


class _Fit(NamedTuple):
    """A range, and the decades that it spans in each bootstrap draw; shape (DRAWS,)."""

    found: RateRange
    decades: Array


def robustness(record: StudyRecord) -> tuple[tuple[Robustness, ...], tuple[Forgiveness, ...]]:
    """One for each arm, and each arm against the baseline if both have a range."""
    fits = {name: _fit(record, arm) for name, arm in record.arms.items()}
    found = {name: _robustness(record.metric, arm, fits[name]) for name, arm in record.arms.items()}
    base = fits.get(record.baseline)
    compared = [
        _forgiveness(found[name], found[record.baseline], fit, base)
        for name, fit in fits.items()
        if name != record.baseline and fit is not None and base is not None
    ]
    return tuple(found.values()), tuple(compared)


def _robustness(metric: Metric, arm: ArmRecord, fit: _Fit | None) -> Robustness:
    rows = study_rows.finished(arm)
    diverged, finished = sum(_diverged(row) for row in rows), len(rows)
    return Robustness(
        arm=arm.name,
        rates=fit.found if fit else None,
        diverged=diverged,
        finished=finished,
        share=diverged / finished if finished else None,
        share_interval=share_interval(diverged, finished) if finished else None,
        trials=_rate_trials(arm, metric),
    )


def _diverged(row: Row) -> bool:
    return row.outcome == "diverged" and row.failure != "oom"


def _forgiveness(own: Robustness, other: Robustness, fit: _Fit, base: _Fit) -> Forgiveness:
    low, high = np.percentile(fit.decades - base.decades, BAND)
    table = [[each.diverged, each.finished - each.diverged] for each in (own, other)]
    return Forgiveness(
        arm=own.arm,
        against=other.arm,
        times=fit.found.factor / base.found.factor,
        interval=(float(10**low), float(10**high)),
        verdict="more" if low > 0 else "less" if high < 0 else "no difference shown",
        p_diverged=float(stats.fisher_exact(np.array(table)).pvalue),
        trials=min(fit.found.trials, base.found.trials),
    )


# ---------------------------------------------------------------- scores by rate


def _fit(record: StudyRecord, arm: ArmRecord) -> _Fit | None:
    """None if the rate is not a searched number, or fewer than ten trials are usable."""
    if not _searched(arm):
        return None
    ranked = study_rows.ranked(arm.search(), record.metric)
    close = record.metric.close(ranked[0][1]) if ranked else 0.0
    scored = _scored(arm, record.metric, close) if close > 0 else []
    x, y = np.array([rate for rate, _ in scored]), np.array([gain for _, gain in scored])
    if len(x) < MIN_TRIALS or np.ptp(x) < 1e-6:
        return None
    fit = _smoothed(x, y, close, record.metric)
    local = local_scores(_rate_trials(arm, record.metric), fit.found.rates[::EVERY], record.metric)
    return fit._replace(found=replace(fit.found, local=local))


def _searched(arm: ArmRecord) -> bool:
    """Whether the base rate is a searched number."""
    return "choices" not in arm.dimensions.get(RATE, {"choices": ()})


def _rate(row: Row) -> float | None:
    """The base rate; None if it is unusable, or if the trial ran out of memory: that says nothing about the rate."""
    rate = row.params.get(RATE)
    usable = isinstance(rate, int | float) and 0 < rate < math.inf and row.failure != "oom"
    return rate if usable else None


def _rate_trials(arm: ArmRecord, metric: Metric) -> tuple[RateTrial, ...]:
    """A pruned trial is expected to end no better than the best complete one."""
    if not _searched(arm):
        return ()
    rows = study_rows.finished(arm)
    complete = study_rows.scored(rows)
    remaining, best = _remaining_gain([row for row, _ in complete]), [value for _, value in complete]
    found = []
    for row in rows:
        rate, value = _rate(row), _final_value(row, remaining)
        if rate is not None:
            known = metric.worst_of([value, *([metric.best(best)] if best else [])]) if math.isfinite(value) else None
            found.append(RateTrial(rate, known, str(row.outcome)))
    return tuple(found)


def _scored(arm: ArmRecord, metric: Metric, close: float) -> list[tuple[float, float]]:
    """(log10 rate, gain) of each finished trial, gains cut at BAD tolerances below the best complete one."""
    rows = study_rows.finished(arm)
    complete = study_rows.scored(rows)
    floor = max(metric.as_gain(value) for _, value in complete) - BAD * close
    remaining = _remaining_gain([row for row, _ in complete])
    found = []
    for row in rows:
        rate = _rate(row)
        if rate is not None:
            gain = metric.as_gain(_final_value(row, remaining))
            found.append((math.log10(rate), gain if gain > floor else floor))  # NaN becomes the floor, too
    return found


def _final_value(row: Row, remaining: Mapping[int, float]) -> float:
    """A trial's final value, known or extrapolated; NaN if there is none."""
    if row.outcome == "complete" and row.value is not None:
        return row.value
    if row.outcome == "pruned" and row.curve:
        return row.curve[-1].value + remaining.get(row.curve[-1].epoch, math.nan)
    return math.nan


def _remaining_gain(complete: Sequence[Row]) -> dict[int, float]:
    """By epoch: median over complete trials of final value minus value at that epoch."""
    gains: dict[int, list[float]] = {}
    for row in complete:
        for epoch in row.curve:
            if row.value is not None and math.isfinite(epoch.value):
                gains.setdefault(epoch.epoch, []).append(row.value - epoch.value)
    return {epoch: median(values) for epoch, values in gains.items()}


# ---------------------------------------------------------------- smoothing


def _smoothed(x: Array, y: Array, close: float, metric: Metric) -> _Fit:
    grid = np.linspace(x.min(), x.max(), GRID)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=DRAWS)
    curves = local_linear(x, y, grid, np.vstack([np.ones(len(x)), counts]), BANDWIDTH * float(np.ptp(x)))
    spans = [_around_best(curve, close) for curve in curves]
    decades = np.array([grid[last] - grid[first] for first, last in spans])
    first, last = spans[0]
    low, high = 10 ** np.percentile(decades[1:], BAND)
    found = RateRange(
        low=float(10 ** grid[first]),
        high=float(10 ** grid[last]),
        best=float(10 ** grid[int(np.argmax(curves[0]))]),
        factor=float(10 ** decades[0]),
        factor_interval=(float(min(low, 10 ** decades[0])), float(max(high, 10 ** decades[0]))),
        low_open=first == 0,
        high_open=last == GRID - 1,
        tolerance=close,
        trials=len(x),
        rates=tuple(map(float, 10**grid)),
        expected=tuple(map(float, metric.as_gain(curves[0]))),
    )
    return _Fit(found, decades[1:])


def local_linear(x: Array, y: Array, grid: Array, counts: Array, h: float) -> Array:
    """Local linear regression of y on x (n,) at grid (g,), once for each row of counts (b, n); shape (b, g).

    fit = (S2 T0 - S1 T1) / (S2 S0 - S1**2) with S_j = sum w u**j, T_j = sum w u**j y, u = x - grid. A small ridge on S2
    makes it fall back to a local mean if a draw has a single rate.
    """
    u = (x[None, :] - grid[:, None]) / h
    kernel = np.exp(-0.5 * u**2) + 1e-12  # without a trial nearby, a draw gives the mean of all
    s0, s1, s2 = (counts @ (kernel * u**power).T for power in (0, 1, 2))
    t0, t1 = (counts @ (kernel * u**power * y).T for power in (0, 1))
    s2 = s2 + 0.05 * s0
    return np.asarray((s2 * t0 - s1 * t1) / (s2 * s0 - s1**2))


def local_scores(trials: Sequence[RateTrial], rates: Sequence[float], metric: Metric) -> tuple[LocalScores, ...]:
    """Weighted quartiles of the scores at each rate: Gaussian weights, interpolated between the trials' scores."""
    known = [trial.value for trial in trials if trial.value is not None]
    worst = metric.of_diverged(known)
    x = np.log10([trial.rate for trial in trials])
    y = np.array([metric.as_gain(worst if trial.value is None else trial.value) for trial in trials])
    order = np.argsort(y)
    grid = np.log10(rates)
    u = np.abs(x[None, order] - grid[:, None]) / (BANDWIDTH * float(np.ptp(x)))
    weights = np.exp(-0.5 * u**2)
    below = (np.cumsum(weights, axis=1) - 0.5 * weights) / weights.sum(axis=1, keepdims=True)
    found = [np.sort(metric.as_gain(np.interp(QUARTILES, each, y[order]))) for each in below]
    supported = (u <= 1).sum(axis=1) >= MIN_SUPPORT
    return tuple(
        LocalScores(rate, float(low), float(middle), float(high), bool(enough))
        for rate, (low, middle, high), enough in zip(rates, found, supported, strict=True)
    )


def _around_best(curve: Array, close: float) -> tuple[int, int]:
    """First and last index of the run around the maximum that stays within `close` of it."""
    best = int(np.argmax(curve))
    outside = np.flatnonzero(curve < curve[best] - close)
    before, after = outside[outside < best], outside[outside > best]
    return (int(before[-1]) + 1 if len(before) else 0), (int(after[0]) - 1 if len(after) else len(curve) - 1)
