"""From the losses of a learning-rate range test to a range of rates worth searching.

Source of the idea: Smith, "Cyclical Learning Rates for Training Neural Networks" (WACV 2017), section 3.3: the rate at
which the training begins to improve and the rate at which it becomes ragged or worsens are good bounds. How both are
found in a noisy curve is our choice, and so are all constants:

- The loss is smoothed by a centred moving median over 1/20 of the sweep. (fast.ai smooths exponentially, which shifts
  the curve to higher rates and lets one outlier spread.)
- `low` of one seed: the last rate before its lowest loss at which the loss has not yet fallen by 5% of its fall, or by
  less than its noise.
- `high` of one seed: the first rate, once the loss came within 10% of its fall of the lowest, at which it has risen
  again by half of its fall; otherwise the rate at which it diverged, or the end of the sweep.
- The proposal is the median over the seeds, rounded outwards to 1, 2 or 5 times a power of ten. It is wider than the
  paper's bounds for one cyclical schedule: a search can skip rates that fail, and cannot find rates that it excludes.
- A loss that never falls by more than its noise gives no proposal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ralr_tune.records import RateSweep

WINDOW_SHARE = 1 / 20  # of the sweep's steps
MIN_WINDOW = 9  # steps
FALLEN = 0.05  # of the whole fall
NEAR = 0.1  # of the whole fall, above the lowest loss
RISEN = 0.5  # of the whole fall, above the lowest loss
CLEAR = 6.0  # standard errors of a smoothed loss, for a whole fall
NOISE = 2.0  # standard errors of a smoothed loss, for its beginning

Problem = Literal["not finite", "rises", "flat"]
Floats = NDArray[np.float64]


def growing_rates(low: float, high: float, steps: int) -> tuple[float, ...]:
    """`steps` rates from low to high, each a constant factor above the one before."""
    return tuple(np.geomspace(low, high, steps).tolist())


def window_of(steps: int) -> int:
    """Steps of the moving median, an odd number."""
    return max(MIN_WINDOW, round(steps * WINDOW_SHARE)) | 1


def smoothed(losses: Sequence[float], window: int) -> Floats:
    """The centred moving median. Near the ends it has fewer losses; a loss that is not finite counts as infinite."""
    finite = np.where(np.isfinite(losses), losses, np.inf)
    if len(finite) < window:
        return np.array([_median_at(finite, step, window) for step in range(len(finite))])
    half = window // 2
    first = [_median_at(finite, step, window) for step in range(half)]
    last = [_median_at(finite, step, window) for step in range(len(finite) - half, len(finite))]
    return np.concatenate([first, np.median(np.lib.stride_tricks.sliding_window_view(finite, window), axis=1), last])


def _median_at(losses: Floats, step: int, window: int) -> float:
    return float(np.median(losses[max(0, step - window // 2) : step + window // 2 + 1]))


def diverged(losses: Sequence[float], window: int) -> bool:
    """Whether the last losses are not finite, or as far above the first as the lowest is below (at least by noise)."""
    if losses and not math.isfinite(losses[-1]):
        return True
    if len(losses) < 2 * window:
        return False
    now = float(np.median(losses[-window:]))
    if now <= float(np.median(losses[:window])):
        return False  # the usual case, without smoothing all losses
    curve = _Curve(losses, window)
    return now > curve.start + max(curve.fall, curve.clear)


@dataclass(frozen=True)
class SeedRange:
    """What one seed shows; rates are None if there is a problem."""

    seed: int
    problem: Problem | None
    """"not finite" from the first steps on, "rises" without a fall before, or "flat": it does neither."""
    low: float | None = None
    lowest_at: float | None = None
    """The rate of the lowest smoothed loss."""
    lowest: float | None = None
    high: float | None = None
    falls_at_once: bool = False
    """The loss already falls at the first rates, so `low` may lie below the sweep."""
    stays_low: bool = False
    """The loss has not risen again at the last rate, so `high` may lie above the sweep."""


@dataclass(frozen=True)
class RangeProposal:
    """The proposed range; None if fewer than half of the seeds show one."""

    low: float | None
    high: float | None
    seeds: tuple[SeedRange, ...]

    @property
    def line(self) -> str | None:
        """The proposal as a line of a study file."""
        if self.low is None or self.high is None:
            return None
        return f"lr = {{ low = {self.low!r}, high = {self.high!r}, log = true }}"

    @property
    def falls_at_once(self) -> bool:
        return any(seed.falls_at_once for seed in self.seeds)

    @property
    def stays_low(self) -> bool:
        return any(seed.stays_low for seed in self.seeds)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(seed.problem for seed in self.seeds if seed.problem)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"log": True, "line": self.line}


def propose(sweeps: Sequence[RateSweep], window: int) -> RangeProposal:
    """The median of the seeds' ranges. `window`: steps of the moving median (see `window_of`)."""
    seeds = tuple(_seed_range(sweep, window) for sweep in sweeps)
    lows = [seed.low for seed in seeds if seed.low is not None]
    highs = [seed.high for seed in seeds if seed.high is not None]
    if 2 * len(lows) < len(seeds) or not lows:
        return RangeProposal(None, None, seeds)
    return RangeProposal(_rounded(median(lows), up=False), _rounded(median(highs), up=True), seeds)


class _Curve:
    """The losses of one seed, smoothed, and their noise. At least one loss must be finite."""

    def __init__(self, losses: Sequence[float], window: int) -> None:
        self.smooth = smoothed(losses, window)
        self.start = float(self.smooth[window // 2]) if len(losses) > window // 2 else float(self.smooth[-1])
        self.bottom = int(np.argmin(self.smooth))
        self.lowest = float(self.smooth[self.bottom])
        self.fall = self.start - self.lowest
        self.standard_error = 1.2533 * _noise(losses) / math.sqrt(window)  # of the median of normal noise
        self.clear = CLEAR * self.standard_error


def _noise(losses: Sequence[float]) -> float:
    """The standard deviation of the losses about their curve, from the median difference of successive ones.

    Not from the distance to the smoothed curve, which follows the noise if the window is short.
    """
    finite = np.asarray(losses)[np.isfinite(losses)]
    # 1.4826: from the median deviation of normal noise to its standard deviation
    return 1.4826 * float(np.median(np.abs(np.diff(finite)))) / math.sqrt(2) if len(finite) > 1 else 0.0


def _seed_range(sweep: RateSweep, window: int) -> SeedRange:
    finite = np.isfinite(sweep.losses)
    if not finite[: window // 2 + 1].all():
        return SeedRange(sweep.seed, "not finite")
    curve = _Curve(sweep.losses, window)
    if curve.fall <= max(curve.clear, 1e-9 * abs(curve.start)):
        return SeedRange(sweep.seed, "rises" if sweep.ended_early else "flat")
    low = _falls_from(curve)
    high, risen = _rises_at(curve, int(np.flatnonzero(finite)[-1]))
    return SeedRange(
        sweep.seed,
        None,
        low=sweep.rates[low],
        lowest_at=sweep.rates[curve.bottom],
        lowest=curve.lowest,
        high=sweep.rates[high],
        falls_at_once=low < window,
        stays_low=not (risen or sweep.ended_early),
    )


def _falls_from(curve: _Curve) -> int:
    """The last step before the lowest loss at which the loss has not yet fallen clearly."""
    clearly = max(FALLEN * curve.fall, NOISE * curve.standard_error)
    not_fallen = np.flatnonzero(curve.smooth[: curve.bottom] >= curve.start - clearly)
    return int(not_fallen[-1]) if len(not_fallen) else 0


def _rises_at(curve: _Curve, last: int) -> tuple[int, bool]:
    """The first step at which the loss has risen again, and True; if it never does, the last one, and False."""
    near = int(np.flatnonzero(curve.smooth <= curve.lowest + NEAR * curve.fall)[0])
    risen = np.flatnonzero(curve.smooth[near:] > curve.lowest + RISEN * curve.fall)
    return (near + int(risen[0]), True) if len(risen) else (last, False)


def _rounded(rate: float, *, up: bool) -> float:
    """The nearest 1, 2 or 5 times a power of ten above or below."""
    power = math.floor(math.log10(rate))
    steps = [float(f"{digit}e{exponent}") for exponent in (power - 1, power, power + 1) for digit in (1, 2, 5)]
    slack = 1e-9  # rates at the ends of a sweep carry rounding errors
    return min(s for s in steps if s >= rate * (1 - slack)) if up else max(s for s in steps if s <= rate * (1 + slack))
