"""Which searched parameters matter: each one's share of the variance of the trials' ranks, against chance.

Ranks, not scores: a rate beyond the cliff ruins a run, and a few ruined scores would hold nearly all the variance
(measured: 50 trials with such a cliff, a parameter of 8 times the noise was found in 27% by scores, in 100% by ranks).
The regression is additive (`additive.py`): a parameter that acts through an interaction alone is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from ralr_tune.analysis.additive import Array, Column, Scale, shares
from ralr_tune.records import ArmRecord

if TYPE_CHECKING:
    import optuna

Verdict = Literal["matters", "indistinguishable", "too little evidence"]

EVALUATOR = "additive spline regression on ranks, null from permuting the parameter's column"
MIN_TRIALS = 10
CHANCE = 0.25  # where a parameter without effect may explain more than this, nothing found says nothing
REACHED = 0.8  # trials are compared at the last epoch that this share of them reached


@dataclass(frozen=True)
class Importance:
    """How much of the variance of the trials' ranks one parameter explains by itself."""

    value: float
    """Share in [0, 1]; the shares of all parameters need not add up to 1."""
    interval: tuple[float, float]
    """95%, over the noise of the same trials; (0, 1) where nothing can be said."""
    null: tuple[float, float]
    """Where 95% of the values fall when the parameter has no effect; (0, 1) where nothing can be said."""
    verdict: Verdict
    epoch: int | None
    """Epoch (in a foreign study: step) at which trials are compared; None for their final values."""
    trials: int
    """Trials that are compared."""
    evaluator: str = EVALUATOR


class Observed(NamedTuple):
    """One trial: its parameters and its scores by epoch (or step), or its final score alone."""

    params: Mapping[str, Any]
    scores: Mapping[int, float]
    final: float = math.nan


def importance(study: optuna.Study) -> dict[str, Importance]:
    """Importance of each parameter of any single-objective Optuna study, pruned trials included.

    Trials are compared by their final values, or, where some were pruned, by their reports at the last step that 80%
    of them reached. Values that are not finite are left out; a parameter that some trials lack cannot be judged.
    """
    if len(study.directions) != 1:
        raise ValueError(f"study: {len(study.directions)} objectives, allowed: 1")
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in ("COMPLETE", "PRUNED")]
    complete = [
        Observed(trial.params, trial.intermediate_values, math.nan if trial.value is None else trial.value)
        for trial in trials
        if trial.state.name == "COMPLETE"
    ]
    pruned = [Observed(trial.params, trial.intermediate_values) for trial in trials if trial.state.name == "PRUNED"]
    if not pruned or not all(trial.scores for trial in complete):
        complete, pruned = [trial._replace(scores={}) for trial in complete], []
    scales = {name: _scale_of(domain) for trial in trials for name, domain in trial.distributions.items()}
    return _importance(scales, complete + pruned)


def arm_importance(arm: ArmRecord) -> dict[str, Importance]:
    """Importance of each searched parameter of an arm, over all its blocks; diverged and failed trials are left out."""
    trials = [
        Observed(row.params, {epoch.epoch: epoch.value for epoch in row.curve})
        for row in arm.search()
        if row.outcome in ("complete", "pruned") and row.curve
    ]
    return _importance({name: _scale(domain) for name, domain in arm.dimensions.items()}, trials)


def array_importance(
    columns: Mapping[str, Column], scores: Array, *, epoch: int | None = None
) -> dict[str, Importance]:
    """The core: each parameter's n values, and scores of shape (n,). Deterministic."""
    n = len(scores)
    unknown = Importance(0.0, (0.0, 1.0), (0.0, 1.0), "too little evidence", epoch, n)
    found = dict.fromkeys(columns, unknown)
    if n < MIN_TRIALS:
        return found
    for name, (value, interval, null) in shares(columns, stats.rankdata(scores)).items():
        found[name] = Importance(value, interval, null, _verdict(value, null[1]), epoch, n)
    return found


def _verdict(value: float, by_chance: float) -> Verdict:
    if value > by_chance:
        return "matters"
    return "indistinguishable" if by_chance <= CHANCE else "too little evidence"


def comparison_epoch(lengths: Iterable[int]) -> int | None:
    """The last epoch that at least 80% of the trials reached; None without trials."""
    reached = sorted(lengths)
    return reached[math.floor((1 - REACHED) * len(reached) + 1e-9)] if reached else None


def _importance(scales: Mapping[str, Scale], trials: Sequence[Observed]) -> dict[str, Importance]:
    """Chooses the epoch, and judges the parameters over the trials that reached it."""
    epoch = comparison_epoch(max(trial.scores) for trial in trials if trial.scores)
    scored = [(trial.params, score) for trial in trials if math.isfinite(score := _score(trial, epoch))]
    columns = {
        name: Column(scale, [params[name] for params, _ in scored])
        if all(name in params for params, _ in scored)
        else Column("choice", [None] * len(scored))  # one value: nothing can be said
        for name, scale in scales.items()
    }
    return array_importance(columns, np.array([score for _, score in scored]), epoch=epoch)


def _score(trial: Observed, epoch: int | None) -> float:
    """The trial's score at the epoch (its last report until then); NaN if it did not get there."""
    if epoch is None:
        return trial.final
    if not trial.scores or max(trial.scores) < epoch:
        return math.nan
    return trial.scores[max(step for step in trial.scores if step <= epoch)]


def _scale(domain: Mapping[str, Any]) -> Scale:
    if "choices" in domain:
        return "choice"
    return "log" if domain.get("log") else "linear"


def _scale_of(domain: optuna.distributions.BaseDistribution) -> Scale:
    """Read by name, so that Optuna need not be imported."""
    return _scale({name: getattr(domain, name) for name in ("choices", "log") if hasattr(domain, name)})
