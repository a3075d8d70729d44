"""From decisions to figures: how often each policy is right, what its configuration loses, what it spends."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from benchmarks.decisions.decision import Decision
from benchmarks.decisions.worlds import Match

DIFFERENCES = (0.0, 0.5, 1.0, 2.0)
"""True differences of the arms, in standard deviations between seeds."""


@dataclass(frozen=True)
class Outcome:
    """One decision against the truth."""

    difference: float
    """The true difference of the arms, in standard deviations between seeds."""
    claimed: bool
    right: bool
    """The arm that is called better is the better one; never if both are equal."""
    recipes_wrong: bool
    """The arm that is called better has a configuration that is no better than the other arm's: the claim is wrong
    even if it is taken to be about the two configurations alone."""
    regret: float
    """The best arm's best true mean minus that of the returned configuration, in standard deviations between seeds."""
    epochs: Mapping[str, int]

    @property
    def wrong(self) -> bool:
        return self.claimed and not self.right


def outcome(match: Match, decision: Decision, difference: float) -> Outcome:
    """How a decision compares with the truth."""
    world, shifts = match.world, match.shifts(difference)
    means = [world.mean(params) + shift for params, shift in zip(decision.recipes, shifts, strict=True)]
    claim = decision.claim
    return Outcome(
        difference=difference,
        claimed=claim is not None,
        right=difference > 0 and claim == match.better,
        recipes_wrong=claim is not None and means[claim] <= means[1 - claim],
        regret=(world.best + max(shifts) - means[decision.returned]) / world.sd,
        epochs=decision.epochs,
    )


def as_json(found: Outcome) -> dict[str, Any]:
    return asdict(found)


@dataclass(frozen=True)
class Share:
    """A share of the replays, with its 95% interval (Clopper and Pearson)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Sequence[bool]) -> Share:
        interval = stats.binomtest(sum(found), len(found)).proportion_ci(method="exact")
        return cls(sum(found) / len(found), float(interval.low), float(interval.high))

    def __str__(self) -> str:
        return f"{100 * self.value:.0f}% ({100 * self.low:.0f} to {100 * self.high:.0f})"


@dataclass(frozen=True)
class Mean:
    """A mean over the replays, with its standard error; NaN with a single replay."""

    value: float
    error: float

    @classmethod
    def of(cls, found: Sequence[float]) -> Mean:
        error = stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan
        return cls(fmean(found), error)

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.error:.2f}"


@dataclass(frozen=True)
class Figures:
    """One policy in one world."""

    policy: str
    replays: int
    false_claims: Share
    """Claims when both arms are equally good."""
    recipes_wrong: Share
    """See `Outcome.recipes_wrong`, when both arms are equally good."""
    right: Mapping[float, Share]
    """By true difference above 0."""
    wrong: Mapping[float, Share]
    regret: Mapping[float, Mean]
    """By true difference, in standard deviations between seeds."""
    epochs: Mapping[str, Mean]
    """By stage, when both arms are equally good: an adaptive policy spends less on a large difference."""
    total: Mapping[float, Mean]
    """Epochs of all stages, by true difference."""


def figures(policy: str, outcomes: Iterable[Outcome]) -> Figures:
    """The figures of one policy in one world. Raises ValueError without an outcome at every difference."""
    by: dict[float, list[Outcome]] = defaultdict(list)
    for each in outcomes:
        by[each.difference].append(each)
    if missing := [difference for difference in DIFFERENCES if not by[difference]]:
        raise ValueError(f"{policy}: no replay at a true difference of {missing[0]:g}")
    equal = by[0.0]
    stages = dict.fromkeys(stage for each in equal for stage in each.epochs)
    return Figures(
        policy=policy,
        replays=len(equal),
        false_claims=Share.of([each.claimed for each in equal]),
        recipes_wrong=Share.of([each.recipes_wrong for each in equal]),
        right={d: Share.of([each.right for each in by[d]]) for d in DIFFERENCES if d},
        wrong={d: Share.of([each.wrong for each in by[d]]) for d in DIFFERENCES if d},
        regret={d: Mean.of([each.regret for each in by[d]]) for d in DIFFERENCES},
        epochs={stage: Mean.of([float(each.epochs.get(stage, 0)) for each in equal]) for stage in stages},
        total={d: Mean.of([float(sum(each.epochs.values())) for each in by[d]]) for d in DIFFERENCES},
    )
