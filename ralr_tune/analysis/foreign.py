"""Compares two of the user's own Optuna studies: the best value by budget, and a verdict over replicates.

For users with their own training loop; this module does not depend on study files or storage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from numbers import Real
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
    """The comparison of two searches, or of the replicates of two searches."""

    study: BudgetCurve
    baseline: BudgetCurve
    lead: Lead
    """The study's best value so far minus the baseline's, at equal numbers of trials."""
    trials: int
    """The number of trials that every replicate of both sides has; the verdict uses only these."""
    verdict: Comparison | None
    """Compares the best values after `trials` trials; None if either side is a single search (n = 1), or if a
    replicate has no complete trial among these."""

    def __str__(self) -> str:
        if self.verdict is None and min(self.study.blocks, self.baseline.blocks) > 1:
            return f"No verdict after {self.trials} trials: not every replicate has a complete trial among them."
        if self.verdict is None:
            return f"No verdict after {self.trials} trials: one search is n = 1; give at least two replicates of both."
        result, interval = self.verdict, self.verdict.interval
        share = f"{100 * result.confidence:g}%"
        bounds = "" if interval is None else f" ({share} interval {interval[0]:.4g} to {interval[1]:.4g})"
        return (
            f"{result.arm} against {result.against}: {result.verdict}; after {self.trials} trials its best differs by "
            f"{result.difference:.4g}{bounds}, over {result.n} replicates of each."
        )


def compare(
    study: optuna.Study | Iterable[optuna.Study],
    baseline: optuna.Study | Iterable[optuna.Study],
    *,
    margin: float = 0.0,
    confidence: float = 0.95,
    paired: bool = False,
) -> SearchComparison:
    """Budget curves of two single-objective searches; a verdict only if both are lists of replicates.

    A replicate is an independent repetition of the same search, with its own sampler and training seeds. `paired`: the
    k-th replicates of both share their seeds and are compared pair by pair; otherwise the verdict is Welch's t-test
    (Welch 1947). Differences below `margin` count as equivalent. The comparison uses the best value of each search, in
    the objective's unit: the maximum of noisy values, which is biased upwards, more on the noisier side. So compare the
    winners on fresh seeds, too. A trial that violates a constraint (Optuna: any value above 0) counts towards the
    budget and cannot be the best.

    Raises ValueError for anything but Optuna studies, for several objectives, different directions, a study that
    occurs twice, paired lists of unequal length, a study without a complete trial that meets its constraints, a
    negative `margin`, and a `confidence` outside (0.5, 1).
    """
    settings = VerdictSettings(margin, confidence, paired)
    _check_settings(settings)
    own, other = _studies("study", study), _studies("baseline", baseline)
    metric = _metric([*own, *other])
    _check_distinct(own, other)
    sides = _side("study", own), _side("baseline", other)
    _check_sides(*sides, paired)
    return _compared(*sides, metric, settings)


class VerdictSettings(NamedTuple):
    """The settings of a verdict."""

    margin: float
    confidence: float
    paired: bool


class _Side(NamedTuple):
    """One side of the comparison: a search, or replicates of it."""

    name: str
    studies: Sequence[optuna.Study]
    searches: Sequence[Search]

    def best_after(self, trials: int, metric: Metric) -> list[float]:
        """The best value of each replicate."""
        return [metric.as_gain(float(incumbents(search, metric)[trials - 1])) for search in self.searches]


def _compared(own: _Side, other: _Side, metric: Metric, settings: VerdictSettings) -> SearchComparison:
    independent = all(type(each.sampler).__name__ == "RandomSampler" for each in [*own.studies, *other.studies])
    rule = CurveRule(metric, independent, worst_value([own.searches, other.searches], metric))
    trials = min(len(search) for search in [*own.searches, *other.searches])
    return SearchComparison(
        study=curve(own.name, own.searches, rule),
        baseline=curve(other.name, other.searches, rule),
        lead=lead((own.name, own.searches), (other.name, other.searches), rule, paired=settings.paired),
        trials=trials,
        verdict=_verdict(own, other, trials, rule, settings),
    )


def _check_settings(settings: VerdictSettings) -> None:
    """ValueError for a setting outside its allowed range."""
    margin, confidence, paired = settings
    if not (_is_number(margin) and 0 <= margin < math.inf):
        raise ValueError(f"margin = {margin!r}, allowed: a number, 0 or more, in the objective's own unit")
    if not (_is_number(confidence) and 0.5 < confidence < 1):  # as in the study file
        raise ValueError(f"confidence = {confidence!r}, allowed: a number above 0.5 and below 1, such as 0.95")
    if not isinstance(paired, bool):
        raise ValueError(f"paired = {paired!r}, allowed: True or False")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _studies(role: str, given: optuna.Study | Iterable[optuna.Study]) -> list[optuna.Study]:
    """The studies of one side, from a single one, a list, or anything else that can be iterated."""
    from optuna import Study

    if isinstance(given, Study):
        return [given]
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ValueError(f"{role} = {given!r}, allowed: an optuna.Study, or a list of replicates of it")
    studies = list(given)
    if not studies:
        raise ValueError(f"{role}: an empty list, allowed: a study, or a list of replicates of it")
    for index, each in enumerate(studies):
        if not isinstance(each, Study):
            raise ValueError(f"{role}[{index}] = {each!r}, allowed: an optuna.Study")
    return studies


def _check_distinct(own: Sequence[optuna.Study], other: Sequence[optuna.Study]) -> None:
    """ValueError if one search would count as two replicates: a study passed twice, loaded twice, or copied."""
    samples = [[*own, *other]] if min(len(own), len(other)) > 1 else [own, other]
    for studies in samples:
        for (one, mine), (two, theirs) in combinations([(each.study_name, _trials_of(each)) for each in studies], 2):
            if mine and theirs and (mine <= theirs or theirs <= mine):
                names = f"{one} is given twice" if one == two else f"{one} and {two} hold the same trials"
                raise ValueError(f"{names}, allowed: independent replicates, each one once")


def _trials_of(study: optuna.Study) -> frozenset[tuple[object, ...]]:
    """What identifies a study's finished trials, also after `optuna.copy_study`."""
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return frozenset((trial.datetime_start, trial.datetime_complete, repr(trial.params)) for trial in finished)


def _side(role: str, studies: Sequence[optuna.Study]) -> _Side:
    """Named after its first study, or after its role if Optuna generated that name."""
    name = studies[0].study_name
    return _Side(role if name.startswith("no-name-") else name, studies, [_search(each) for each in studies])


def _search(study: optuna.Study) -> Search:
    """Finished trials by number; a failed trial or one without a finite value still counts towards the budget."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return [_trial(trial) for trial in trials]


def _trial(trial: optuna.trial.FrozenTrial) -> Spent:
    """A trial that violates a constraint has no value, like a failed one."""
    feasible = all(violation <= 0 for violation in trial.constraints.values())
    ended = trial.state.name in ("COMPLETE", "PRUNED") and trial.value is not None and math.isfinite(trial.value)
    known = ended and feasible
    return Spent(
        value=trial.value if known and trial.value is not None else math.nan,
        complete=known and trial.state.name == "COMPLETE",
        epochs=len(trial.intermediate_values),
        seconds=trial.duration.total_seconds() if trial.duration else 0.0,
    )


def _metric(studies: Sequence[optuna.Study]) -> Metric:
    """The metric that the studies optimise; Optuna stores only its direction."""
    for study in studies:
        if len(study.directions) != 1:
            raise ValueError(f"{study.study_name}: {len(study.directions)} objectives, allowed: 1")
    names = {study.direction.name for study in studies}
    if len(names) > 1:
        raise ValueError("directions: maximize and minimize, allowed: the same in all studies")
    return Metric("value", direction="maximize" if names == {"MAXIMIZE"} else "minimize")


def _check_sides(own: _Side, other: _Side, paired: bool) -> None:
    for side in (own, other):
        if not all(has_complete([search]) for search in side.searches):
            found = "a study without a complete trial that meets its constraints"
            raise ValueError(f"{side.name}: {found}, allowed: at least one in each")
    if paired and len(own.searches) != len(other.searches):
        counts = f"{len(own.searches)} and {len(other.searches)}"
        raise ValueError(f"paired: {counts} replicates, allowed: the same number on both sides")


def _verdict(own: _Side, other: _Side, trials: int, rule: CurveRule, settings: VerdictSettings) -> Comparison | None:
    samples = own.best_after(trials, rule.metric), other.best_after(trials, rule.metric)
    if min(map(len, samples)) < 2 or not all(math.isfinite(value) for sample in samples for value in sample):
        return None
    options = {"margin": settings.margin, "confidence": settings.confidence}
    if settings.paired:
        pairs = Pairs("arm", own.name, other.name, [a - b for a, b in zip(*samples, strict=True)])
        return comparison.compare([pairs], metric=rule.metric, **options)[0]
    return comparison.compare_unpaired((own.name, other.name), samples, metric=rule.metric, **options)
