"""Base curves of the learning rate, in closed form: multiplier = curve.factor(t).

Symbols: t is the position in the run in epochs, a real number in [0, epochs); an integer if the rate changes once per
epoch, epoch + step / (steps of that epoch) if it changes every step. The multiplier is relative to the study's `lr`.

Each curve equals torch's scheduler of that name, stepped once per epoch (a test compares them). Closed forms, because
torch's are recursive: they multiply the current rate, so they can neither be evaluated at any t nor be perturbed.

Lengths and positions (`warmup`, `step_size`, `period`, `milestones`, `peak_at`): below 1 a share of the whole run,
otherwise epochs. Milestones and the peak are positions counted from the run's start; everything else begins after the
warm-up, and curves that span the run span its part after the warm-up (as SequentialLR([LinearLR, X], [warmup]) does).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from ralr_tune.schedules.checks import check_choice, check_integer, check_number, check_parameter, refusal

SLACK = 1e-9
"""Epochs by which t may fall short of a boundary: 0.55 * 100 and 2 + 1/3 + 2/3 are not exact in floating point."""


@dataclass(frozen=True, kw_only=True)
class Curve(ABC):
    """A multiplier of the learning rate over a run of `epochs`. The fields are the options as the user gave them.

    Warm-up is linear from `warmup_factor` times the curve's initial value to that value. For all curves that start at 1
    this is LinearLR(start_factor=warmup_factor); one_cycle and cyclic start lower and continue without a jump.
    """

    epochs: int
    warmup: float = 0.0
    warmup_factor: float = 0.1

    def __post_init__(self) -> None:
        check_parameter("epochs", self.epochs)
        check_number("warmup", self.warmup, f"[0, {self.epochs})")
        check_parameter("schedule.warmup_factor", self.warmup_factor)
        self._check()

    def factor(self, t: float) -> float:
        """The multiplier at t epochs into the run; after the end of the run it keeps its last value."""
        start = self._start
        if t >= start - SLACK:
            return self._shape(min(max(t - start, 0.0), self._span))
        return self._shape(0.0) * (self.warmup_factor + (1 - self.warmup_factor) * t / start)

    @abstractmethod
    def _check(self) -> None:
        """Raises ValueError for an impossible option."""

    @abstractmethod
    def _shape(self, t: float) -> float:
        """The multiplier t epochs after the warm-up, 0 <= t <= span."""

    @cached_property
    def _start(self) -> float:
        """Epochs of warm-up."""
        return self._length(self.warmup)

    @cached_property
    def _span(self) -> float:
        """Epochs after the warm-up."""
        return self.epochs - self._start

    def _length(self, value: float) -> float:
        """Converts a share of the run (below 1) or a number of epochs to epochs."""
        return value if value >= 1 else value * self.epochs

    def _check_position(self, field: str, value: float) -> None:
        check_number(field, value, f"(0, {self.epochs})")
        if self._length(value) <= self._start:
            raise refusal(field, value, f"a position after the warm-up, which ends at epoch {self._start:g}")


@dataclass(frozen=True, kw_only=True)
class Constant(Curve):
    """Always 1."""

    def _check(self) -> None: ...

    def _shape(self, t: float) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Linear(Curve):
    """From 1 to `end_factor` along a line; torch's LinearLR."""

    end_factor: float = 0.0

    def _check(self) -> None:
        check_parameter("schedule.end_factor", self.end_factor)

    def _shape(self, t: float) -> float:
        return 1 + (self.end_factor - 1) * t / self._span


@dataclass(frozen=True, kw_only=True)
class Step(Curve):
    """Times `gamma` after every `step_size`; torch's StepLR."""

    step_size: float
    gamma: float = 0.1

    def _check(self) -> None:
        check_parameter("schedule.step_size", self.step_size)
        check_parameter("schedule.gamma", self.gamma)

    def _shape(self, t: float) -> float:
        return self.gamma ** _rounds(t, self._length(self.step_size))


@dataclass(frozen=True, kw_only=True)
class MultiStep(Curve):
    """Times `gamma` at each of the `milestones`; torch's MultiStepLR.

    He et al. 2016, section 4.2, divide by 10 at 32k and 48k of 64k steps: the defaults are those two shares.
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1

    def _check(self) -> None:
        check_parameter("schedule.gamma", self.gamma)
        if not isinstance(self.milestones, tuple | list):
            raise refusal("milestones", self.milestones, "a list of shares of the run (below 1) or epochs")
        for position in self.milestones:
            self._check_position("milestones", position)
            if position >= 1:
                check_integer("milestones", position, low=1, below=self.epochs)

    def _shape(self, t: float) -> float:
        passed = sum(t >= self._length(position) - self._start - SLACK for position in self.milestones)
        return self.gamma**passed


@dataclass(frozen=True, kw_only=True)
class Exponential(Curve):
    """Times `gamma` every epoch; torch's ExponentialLR."""

    gamma: float = 0.95

    def _check(self) -> None:
        check_parameter("schedule.gamma", self.gamma)

    def _shape(self, t: float) -> float:
        return math.pow(self.gamma, t)


@dataclass(frozen=True, kw_only=True)
class Polynomial(Curve):
    """From 1 to 0 as (1 - t / span) ** power; torch's PolynomialLR."""

    power: float = 1.0

    def _check(self) -> None:
        check_parameter("schedule.power", self.power)

    def _shape(self, t: float) -> float:
        return math.pow(1 - t / self._span, self.power)


@dataclass(frozen=True, kw_only=True)
class Cosine(Curve):
    """From 1 to `end_factor` along half a cosine; torch's CosineAnnealingLR with eta_min = end_factor * lr.

    arXiv 1608.03983, equation 5, without a restart.
    """

    end_factor: float = 0.0

    def _check(self) -> None:
        check_parameter("schedule.end_factor", self.end_factor)

    def _shape(self, t: float) -> float:
        return _anneal(1.0, self.end_factor, t / self._span)


@dataclass(frozen=True, kw_only=True)
class InverseSqrt(Curve):
    """The inverse square root of the position, from 1 at the end of the warm-up, which it needs.

    Vaswani et al. 2017, equation 3, min(step ** -0.5, step * warmup ** -1.5), divided by its peak, warmup ** -0.5.
    There the warm-up starts at 0; here at `warmup_factor`, as for every curve.
    """

    def _check(self) -> None:
        if not self.warmup:
            raise refusal("warmup", self.warmup, "a warm-up above 0: the curve falls from its end on")

    def _shape(self, t: float) -> float:
        return math.sqrt(self._start / (self._start + t))


@dataclass(frozen=True, kw_only=True)
class Sgdr(Curve):
    """Cosine with warm restarts: the n-th round lasts period * multiplier**n; torch's CosineAnnealingWarmRestarts.

    arXiv 1608.03983, equation 5; `period` is its T_0, `multiplier` its T_mult.
    """

    period: float = 10
    multiplier: int = 1
    end_factor: float = 0.0

    def _check(self) -> None:
        check_parameter("schedule.period", self.period)
        check_parameter("schedule.multiplier", self.multiplier)
        check_parameter("schedule.end_factor", self.end_factor)

    def _shape(self, t: float) -> float:
        period, growth = self._length(self.period), self.multiplier
        if growth == 1:
            begun, length = _rounds(t, period) * period, period
        else:
            # rounds 0..n-1 together last period * (growth**n - 1) / (growth - 1)
            rounds = math.floor(math.log(t / period * (growth - 1) + 1, growth) + SLACK)
            begun, length = period * (growth**rounds - 1) / (growth - 1), period * growth**rounds
        return _anneal(1.0, self.end_factor, max(t - begun, 0.0) / length)


@dataclass(frozen=True, kw_only=True)
class Cyclic(Curve):
    """Up from `low_factor` to 1 and down again, once per `period`; torch's CyclicLR with equal halves.

    arXiv 1506.01186. Mode "triangular2" halves the height after every period. In mode "exp_range" the height is `gamma`
    to the power of the epochs since the start (torch counts steps); no other mode uses `gamma`.
    """

    period: float
    low_factor: float = 0.1
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: float | None = None

    def _check(self) -> None:
        check_parameter("schedule.period", self.period)
        check_parameter("schedule.low_factor", self.low_factor)
        check_choice("mode", self.mode, ("triangular", "triangular2", "exp_range"))
        if self.mode == "exp_range":
            check_parameter("schedule.gamma", self.gamma)
        elif self.gamma is not None:
            raise refusal("gamma", self.gamma, f"no gamma, since mode is {self.mode!r}; only 'exp_range' uses it")

    def _shape(self, t: float) -> float:
        period = self._length(self.period)
        rounds = _rounds(t, period)
        position = max(t / period - rounds, 0.0)
        height = (1 - abs(2 * position - 1)) * self._scale(t, rounds)
        return self.low_factor + (1 - self.low_factor) * height

    def _scale(self, t: float, rounds: int) -> float:
        if self.gamma is not None:
            return math.pow(self.gamma, t)
        return 0.5**rounds if self.mode == "triangular2" else 1.0


@dataclass(frozen=True, kw_only=True)
class OneCycle(Curve):
    """From 1 / div_factor up to 1 at `peak_at`, then down to 1 / (div_factor * final_div_factor), both along a cosine.

    arXiv 1708.07120; torch's OneCycleLR, except that torch counts from the first index to the last, and this curve from
    the run's start to its end, like all others: it equals OneCycleLR(total_steps=epochs + 1).
    """

    peak_at: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def _check(self) -> None:
        self._check_position("peak_at", self.peak_at)
        check_parameter("schedule.div_factor", self.div_factor)
        check_parameter("schedule.final_div_factor", self.final_div_factor)

    def _shape(self, t: float) -> float:
        first, peak = 1 / self.div_factor, self._length(self.peak_at) - self._start
        if t <= peak:
            return _anneal(first, 1.0, t / peak)
        return _anneal(1.0, first / self.final_div_factor, (t - peak) / (self._span - peak))


def _rounds(t: float, length: float) -> int:
    """The number of complete rounds of `length` at t."""
    return math.floor((t + SLACK) / length)


def _anneal(start: float, end: float, share: float) -> float:
    """From start (share 0) to end (share 1) along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


CURVES: Mapping[str, type[Curve]] = MappingProxyType(
    {
        "constant": Constant,
        "linear": Linear,
        "step": Step,
        "multistep": MultiStep,
        "exponential": Exponential,
        "polynomial": Polynomial,
        "cosine": Cosine,
        "inverse_sqrt": InverseSqrt,
        "sgdr": Sgdr,
        "cyclic": Cyclic,
        "one_cycle": OneCycle,
    }
)
"""By their names in a study file; the last three are not monotone."""

_COMMON = frozenset(field.name for field in fields(Curve))

OPTIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {name: frozenset(field.name for field in fields(kind)) - _COMMON for name, kind in CURVES.items()}
)
"""Names of each curve's own options; every curve also takes `warmup` and `warmup_factor`."""


def make_curve(name: str, *, epochs: int, warmup: float = 0.0, warmup_factor: float = 0.1, **options: Any) -> Curve:
    """The curve called `name` over a run of `epochs`.

    Raises ValueError for an impossible name, option or value, and for a missing option.
    """
    check_choice("name", name, CURVES)
    allowed = ", ".join(sorted(OPTIONS[name])) or f"no options of its own for {name!r}"
    for option in sorted(options.keys() - OPTIONS[name]):
        raise refusal(option, options[option], allowed)
    kind = CURVES[name]
    for field in fields(kind):
        if field.default is MISSING and field.name not in options.keys() | {"epochs"}:
            raise ValueError(f"{field.name} is missing: {name!r} needs it; allowed: a share of the run or epochs")
    # lists (TOML has no tuples) become tuples, so that equal curves compare equal and can be hashed
    given = {option: tuple(value) if isinstance(value, list) else value for option, value in options.items()}
    return kind(epochs=epochs, warmup=warmup, warmup_factor=warmup_factor, **given)
