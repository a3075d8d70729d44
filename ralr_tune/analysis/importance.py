"""Which searched parameters matter: each one's share of the variance of the trials' ranks, compared with chance.

Ranks replace scores because a learning rate that is too high ruins a run, and a few ruined scores would account for
nearly all the variance. Pruned trials are ranked too (`ranks`). An additive regression (`additive.py`) removes what the
other parameters explain: it does not detect a parameter that acts only through an interaction.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ralr_tune.analysis.additive import Array, Column, Scale, shares
from ralr_tune.errors import UsageError
from ralr_tune.metric import Metric
from ralr_tune.records import ArmRecord

if TYPE_CHECKING:
    import optuna

Verdict = Literal["matters", "indistinguishable", "too little evidence"]

EVALUATOR = (
    "additive spline regression on the trials' ranks (pruned trials ranked among those that reached the same epoch), "
    "null from permuting the parameter's column"
)
MIN_TRIALS = 10
MAX_TRIALS = 2000  # if there are more, 2,000 evenly spaced ones are used, to save time
MAX_NULL = 0.25  # if the null band reaches above this, a value inside it is no evidence against an effect
REACHED_SHARE = 0.8  # share of the trials that reached the reported epoch


@dataclass(frozen=True)
class Importance:
    """How much of the variance of the trials' ranks one parameter explains by itself."""

    value: float
    """Share in [0, 1]; the shares of all parameters need not add up to 1."""
    interval: tuple[float, float]
    """95%, over the noise of the same trials; (0, 1) if it cannot be estimated."""
    null: tuple[float, float]
    """Range of 95% of the values if the parameter has no effect; (0, 1) if it cannot be estimated."""
    verdict: Verdict
    epoch: int | None
    """Last epoch (in the user's own study: step) that at least 80% of the trials reached; None if only final
    values are compared."""
    trials: int
    """Number of trials compared."""
    evaluator: str = EVALUATOR


class Observed(NamedTuple):
    """One trial: its parameters and its finite scores by epoch (or step)."""

    params: Mapping[str, Any]
    scores: Mapping[int, float]
    final: float | None = None
    """The score of a trial that was not pruned."""


def importance(study: optuna.Study) -> dict[str, Importance]:
    """Importance of each parameter of any single-objective Optuna study, pruned trials included.

    Left out: values that are not finite, pruned trials whose last report is not, and trials that this package marked
    as diverged. A parameter that some trials lack is tested among those that have it; if it was a choice in some trials
    and a number in others, among the trials of the more frequent kind. Above 2,000 trials, 2,000 of them are used,
    evenly spaced through the study. Raises UsageError for anything but a single-objective study.
    """
    check_study(study)
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in ("COMPLETE", "PRUNED")]
    scales = scales_of(trials)
    observed = [one for trial in trials if (one := _observed(trial, scales)) is not None]
    return _importance(scales, _comparable(observed))


def check_study(study: optuna.Study) -> None:
    """UsageError for anything but an Optuna study of one objective."""
    from optuna import Study

    if not isinstance(study, Study):
        raise UsageError(f"study = {study!r}: must be an optuna.Study")
    if len(study.directions) != 1:
        names = [direction.name.lower() for direction in study.directions]
        raise UsageError(f"study.directions = {names}: importance takes a study of one objective")


def arm_importance(arm: ArmRecord, metric: Metric) -> dict[str, Importance]:
    """Importance of each searched parameter of an arm, over all its blocks; diverged and failed trials are left out.

    Uses gains, so that a metric and its negative give bit-identical numbers.
    """
    trials = [
        Observed(
            row.params,
            {epoch.epoch: metric.as_gain(epoch.value) for epoch in row.curve},
            metric.as_gain(row.curve[-1].value) if row.outcome == "complete" else None,
        )
        for row in arm.search()
        if row.outcome in ("complete", "pruned") and row.curve
    ]
    return _importance({name: _scale(domain) for name, domain in arm.dimensions.items()}, trials)


def array_importance(
    columns: Mapping[str, Column], scores: Array, *, epoch: int | None = None
) -> dict[str, Importance]:
    """The core: each parameter's values, and scores (or ranks) of shape (n,). Deterministic."""
    n = len(scores)
    unknown = Importance(0.0, (0.0, 1.0), (0.0, 1.0), "too little evidence", epoch, n)
    found = {
        name: replace(unknown, trials=n if column.rows is None else len(column.rows))
        for name, column in columns.items()
    }
    used = {name: column for name, column in columns.items() if len(column.values) >= MIN_TRIALS}
    for name, (value, interval, null) in shares(used, scores).items():
        verdict = _verdict(value, null[1])
        found[name] = replace(found[name], value=value, interval=interval, null=null, verdict=verdict)
    return found


def _verdict(value: float, by_chance: float) -> Verdict:
    if value > by_chance:
        return "matters"
    return "indistinguishable" if by_chance <= MAX_NULL else "too little evidence"


def comparison_epoch(lengths: Iterable[int]) -> int | None:
    """The last epoch that at least 80% of the trials reached; None without trials."""
    reached = sorted(lengths)
    return reached[math.floor((1 - REACHED_SHARE) * len(reached) + 1e-9)] if reached else None


def ranks(trials: Sequence[Observed]) -> Array:
    """Each trial's rank, from 0 (lowest score) up; tied trials share their mean rank. The method is our choice.

    First, all trials are ranked by their scores at the epoch at which the first one stopped. At each later stop, the
    trials that reached it are ranked again within the ranks that they hold; finally the unpruned trials, by their final
    scores. So each trial is compared at the last epoch that it shares with those that ran as long, and no rank depends
    on an epoch that the trial did not reach.
    """
    reports = [sorted(trial.scores.items()) for trial in trials]
    stops = np.array([math.inf if trial.final is not None else max(trial.scores) for trial in trials])
    rank, last = np.arange(len(trials), dtype=float), np.zeros(len(trials))
    for stop in np.unique(stops):
        reached = np.flatnonzero(stops >= stop)
        last[reached] = [_score(trials[int(index)].final, reports[int(index)], stop) for index in reached]
        order = np.lexsort((rank[reached], last[reached]))
        rank[reached[order]] = np.sort(rank[reached])
    tied = defaultdict(list)
    for index, end in enumerate(zip(stops, last, strict=True)):
        tied[end].append(index)
    for members in tied.values():
        rank[members] = rank[members].mean()
    return rank


def _score(final: float | None, reports: Sequence[tuple[int, float]], stop: float) -> float:
    """The last score reported up to `stop` (the first one, if all are later); at infinity, the final score."""
    if math.isinf(stop) and final is not None:
        return final
    return reports[max(0, bisect_right(reports, stop, key=itemgetter(0)) - 1)][1]


def _importance(scales: Mapping[str, Scale], trials: Sequence[Observed]) -> dict[str, Importance]:
    """Thins the trials, ranks them, and estimates each parameter's share."""
    used = thinned(trials, MAX_TRIALS)
    columns = {name: _column(name, scale, used) for name, scale in scales.items()}
    epoch = comparison_epoch(max(trial.scores) for trial in used if trial.scores)
    found = array_importance(columns, ranks(used), epoch=epoch)
    if len(used) == len(trials):
        return found
    evaluator = f"{EVALUATOR}; {len(used)} of {len(trials)} trials, evenly spaced"
    return {name: replace(one, evaluator=evaluator) for name, one in found.items()}


def thinned(trials: Sequence[Any], limit: int) -> list[Any]:
    """At most `limit` of the trials, evenly spaced, because a sampler's proposals change over a study."""
    if len(trials) <= limit:
        return list(trials)
    return [trials[index] for index in np.linspace(0, len(trials) - 1, limit).round().astype(int)]


def _column(name: str, scale: Scale, trials: Sequence[Observed]) -> Column:
    rows = [index for index, trial in enumerate(trials) if name in trial.params]
    values = [trials[index].params[name] for index in rows]
    return Column(scale, values, None if len(rows) == len(trials) else np.array(rows, dtype=np.intp))


def scales_of(trials: Sequence[optuna.trial.FrozenTrial]) -> dict[str, Scale]:
    """The scale of each parameter, by its kind (choice or number) in most trials; in a tie, in the newest trial.

    A number has a log scale if one of its domains was logarithmic and all its values are positive.
    """
    domains = defaultdict(list)
    for trial in trials:
        for name, domain in trial.distributions.items():
            domains[name].append((_scale_of(domain), trial.params[name]))
    return {name: _common(seen) for name, seen in domains.items()}


def _common(seen: Sequence[tuple[Scale, Any]]) -> Scale:
    """One scale from the (scale, value) of each trial."""
    choices = [scale == "choice" for scale, _ in seen]
    if 2 * sum(choices) > len(seen) or (2 * sum(choices) == len(seen) and choices[-1]):
        return "choice"
    numbers = [value for scale, value in seen if scale != "choice"]
    return "log" if any(scale == "log" for scale, _ in seen) and min(numbers) > 0 else "linear"


def with_scale(trial: optuna.trial.FrozenTrial, scales: Mapping[str, Scale]) -> dict[str, Any]:
    """The trial's parameters whose kind (choice or number) is that in `scales`."""
    is_choice = {name: _scale_of(domain) == "choice" for name, domain in trial.distributions.items()}
    return {name: value for name, value in trial.params.items() if is_choice[name] == (scales[name] == "choice")}


def _observed(trial: optuna.trial.FrozenTrial, scales: Mapping[str, Scale]) -> Observed | None:
    """None if the trial ended without a finite score, or this package marked it as diverged."""
    if "ralr_tune:diverged" in trial.user_attrs:
        return None
    reports = trial.intermediate_values
    scores = {step: score for step, score in reports.items() if math.isfinite(score)}
    if trial.state.name == "COMPLETE":
        final = trial.value
        finite = final is not None and math.isfinite(final)
        return Observed(with_scale(trial, scales), scores, final) if finite else None
    return Observed(with_scale(trial, scales), scores) if reports and max(reports) in scores else None


def _comparable(trials: Sequence[Observed]) -> list[Observed]:
    """Only final scores if nothing was pruned, or if unpruned trials have no reports to compare."""
    complete = [trial for trial in trials if trial.final is not None]
    if complete and (len(complete) == len(trials) or not all(trial.scores for trial in complete)):
        return [trial._replace(scores={}) for trial in complete]
    return list(trials)


def _scale(domain: Mapping[str, Any]) -> Scale:
    if "choices" in domain:
        return "choice"
    return "log" if domain.get("log") else "linear"


def _scale_of(domain: optuna.distributions.BaseDistribution) -> Scale:
    """Reads attributes by name, so that every kind of distribution works."""
    return _scale({name: getattr(domain, name) for name in ("choices", "log") if hasattr(domain, name)})
