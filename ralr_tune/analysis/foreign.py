"""Compares two of the user's own Optuna studies: the best value by budget, and a verdict over replicates.

For users who keep their own training loop; this module does not depend on study files or storage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ralr_tune.analysis import comparison
from ralr_tune.analysis.budget import (
    BudgetCurve,
    CurveRule,
    Lead,
    Search,
    Spent,
    curve,
    has_complete,
    incumbents,
    lead,
    worst_value,
)
from ralr_tune.analysis.comparison import Comparison, Pairs
from ralr_tune.metric import Metric

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class SearchComparison:
    """One search against another, or replicates of it against replicates."""

    study: BudgetCurve
    baseline: BudgetCurve
    lead: Lead
    """The study's best so far minus the baseline's, at equal numbers of trials."""
    trials: int
    """Trials that every replicate of both reached; the verdict uses these."""
    verdict: Comparison | None
    """Of the best values after `trials` trials; None if either side is a single search, which is n = 1."""

    def __str__(self) -> str:
        if self.verdict is None:
            return f"One search each is n = 1: after {self.trials} trials no verdict; give replicates of both."
        made, interval = self.verdict, self.verdict.interval
        share = f"{100 * made.confidence:g}%"
        bounds = "" if interval is None else f" ({share} interval {interval[0]:.4g} to {interval[1]:.4g})"
        return (
            f"{made.arm} against {made.against}: {made.verdict}; after {self.trials} trials its best differs by "
            f"{made.difference:.4g}{bounds}, over {made.n} replicates of each."
        )


def compare(
    study: optuna.Study | Sequence[optuna.Study],
    baseline: optuna.Study | Sequence[optuna.Study],
    *,
    margin: float = 0.0,
    confidence: float = 0.95,
    paired: bool = False,
) -> SearchComparison:
    """Budget curves of two single-objective searches; a verdict only if both are lists of replicates.

    A replicate is an independent repetition of the same search, with its own sampler and training seeds. `paired`: the
    k-th replicates of both share their seeds and are compared pair by pair; otherwise the verdict is Welch's t-test
    (Welch 1947). Differences below `margin` count as equivalent. The comparison uses the best value of each search, in
    the objective's own unit: the maximum of noisy values, biased upwards, more so on the noisier side. Judge the
    winners on fresh seeds, too.

    Raises ValueError for several objectives, unequal directions, paired lists of unequal length, or a side without a
    complete trial.
    """
    own, other = _side("study", study), _side("baseline", baseline)
    metric = _metric([*own.studies, *other.studies])
    _check(own, other, paired)
    independent = all(type(each.sampler).__name__ == "RandomSampler" for each in [*own.studies, *other.studies])
    rule = CurveRule(metric, independent, worst_value([own.searches, other.searches], metric))
    trials = min(len(search) for search in [*own.searches, *other.searches])
    return SearchComparison(
        study=curve(own.name, own.searches, rule),
        baseline=curve(other.name, other.searches, rule),
        lead=lead((own.name, own.searches), (other.name, other.searches), rule, paired=paired),
        trials=trials,
        verdict=_verdict(own, other, trials, rule, VerdictSettings(margin, confidence, paired)),
    )


class VerdictSettings(NamedTuple):
    """The settings of a verdict."""

    margin: float
    confidence: float
    paired: bool


class _Side(NamedTuple):
    """One search, or replicates of it."""

    name: str
    studies: Sequence[optuna.Study]
    searches: Sequence[Search]

    def best_after(self, trials: int, metric: Metric) -> list[float]:
        """The best value of each replicate."""
        return [metric.as_gain(float(incumbents(search, metric)[trials - 1])) for search in self.searches]


def _side(role: str, given: optuna.Study | Sequence[optuna.Study]) -> _Side:
    """Named after its first study; if Optuna generated that name, by its role."""
    studies = list(given) if isinstance(given, Sequence) else [given]
    if not studies:
        raise ValueError(f"{role}: an empty list, allowed: a study, or a list of replicates of it")
    name = studies[0].study_name
    return _Side(role if name.startswith("no-name-") else name, studies, [_search(each) for each in studies])


def _search(study: optuna.Study) -> Search:
    """Finished trials by number; a failed trial or one without a finite value still counts towards the budget."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return [_trial(trial) for trial in trials]


def _trial(trial: optuna.trial.FrozenTrial) -> Spent:
    known = trial.state.name in ("COMPLETE", "PRUNED") and trial.value is not None and math.isfinite(trial.value)
    return Spent(
        value=trial.value if known and trial.value is not None else math.nan,
        complete=known and trial.state.name == "COMPLETE",
        epochs=len(trial.intermediate_values),
        seconds=trial.duration.total_seconds() if trial.duration else 0.0,
    )


def _metric(studies: Sequence[optuna.Study]) -> Metric:
    """What the studies optimise; Optuna knows only the direction."""
    for study in studies:
        if len(study.directions) != 1:
            raise ValueError(f"{study.study_name}: {len(study.directions)} objectives, allowed: 1")
    names = {study.direction.name for study in studies}
    if len(names) > 1:
        raise ValueError("directions: maximize and minimize, allowed: the same in all studies")
    return Metric("value", direction="maximize" if names == {"MAXIMIZE"} else "minimize")


def _check(own: _Side, other: _Side, paired: bool) -> None:
    for side in (own, other):
        if not all(has_complete([search]) for search in side.searches):
            raise ValueError(f"{side.name}: a study without a complete trial, allowed: at least one in each")
    if paired and len(own.searches) != len(other.searches):
        counts = f"{len(own.searches)} and {len(other.searches)}"
        raise ValueError(f"paired: {counts} replicates, allowed: equally many on both sides")


def _verdict(own: _Side, other: _Side, trials: int, rule: CurveRule, settings: VerdictSettings) -> Comparison | None:
    samples = own.best_after(trials, rule.metric), other.best_after(trials, rule.metric)
    if min(map(len, samples)) < 2 or not all(math.isfinite(value) for sample in samples for value in sample):
        return None
    judged = {"margin": settings.margin, "confidence": settings.confidence}
    if settings.paired:
        pairs = Pairs("arm", own.name, other.name, [a - b for a, b in zip(*samples, strict=True)])
        return comparison.compare([pairs], metric=rule.metric, **judged)[0]
    return comparison.compare_unpaired((own.name, other.name), samples, metric=rule.metric, **judged)
