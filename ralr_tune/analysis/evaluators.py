"""Optuna's own importances, shown alongside this package's: PED-ANOVA, fANOVA and MDI.

They use complete trials only, have no null distribution, and affect no verdict. PED-ANOVA (Watanabe et al. 2023; the
dashboard's plot) is cheap enough to resample; fANOVA (Hutter et al. 2014) and MDI (Louppe et al. 2013), both based on
random forests, are shown without an interval. Values are Optuna's: those of one evaluator add up to 1.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np

from ralr_tune.analysis.importance import check_study, scales_of, thinned, with_scale
from ralr_tune.analysis.rows import scored
from ralr_tune.errors import UsageError
from ralr_tune.metric import Metric
from ralr_tune.records import ArmRecord, StudyRecord

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

Name = Literal["PED-ANOVA", "fANOVA", "MDI"]

NAMES: tuple[Name, ...] = ("PED-ANOVA", "fANOVA", "MDI")
MAX_TRIALS = 200  # if more are complete, 200 evenly spaced ones are used: fANOVA takes 2 s for 200, 37 s for 1,000
MIN_TRIALS = 5  # complete trials
BAND = (2.5, 97.5)  # percent


class Evaluated(NamedTuple):
    """One evaluator's result for one parameter."""

    value: float
    interval: tuple[float, float] | None = None
    """95% bootstrap interval over trials; PED-ANOVA only."""
    null: tuple[float, float] | None = None
    """Range of 95% of the values when the parameter's column alone is permuted; PED-ANOVA only."""


def optuna_importances(study: optuna.Study, *, draws: int = 100, seed: int = 0) -> dict[Name, dict[str, Evaluated]]:
    """{evaluator: {parameter: ...}} for any single-objective study; an evaluator that fails has an empty dict.

    `draws` is the number of resamples and of permutations for PED-ANOVA, 0 for none: 2 to 6 ms for each draw and
    parameter. Above 200 complete trials, 200 of them are used, so that it takes seconds at any size. If a parameter was
    a choice in some trials and a number in others, only the trials of the more frequent kind count for it. Raises
    UsageError for anything but a study of one objective, and if `draws` or `seed` is negative.
    """
    check_study(study)
    for name, number in (("draws", draws), ("seed", seed)):
        if not isinstance(number, int | np.integer) or number < 0:
            raise UsageError(f"{name} = {number!r}: must be a whole number, 0 or more")
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    trials = _of_one_kind(thinned(complete, MAX_TRIALS))
    found = {name: {key: Evaluated(value) for key, value in _values(name, study, trials).items()} for name in NAMES}
    if draws and found["PED-ANOVA"]:
        found["PED-ANOVA"] = _resampled(study, trials, found["PED-ANOVA"], draws, np.random.default_rng(seed))
    return found


def _of_one_kind(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials without parameters of the less frequent kind: Optuna's evaluators expect one domain for each name."""
    scales = scales_of(trials)
    return [_with_params(trial, with_scale(trial, scales)) for trial in trials]


def _with_params(trial: FrozenTrial, params: Mapping[str, Any]) -> FrozenTrial:
    """The trial itself if `params` are all of its parameters, otherwise a copy with only these."""
    if len(params) == len(trial.params):
        return trial
    found = copy.copy(trial)
    found.params, found.distributions = dict(params), {name: trial.distributions[name] for name in params}
    return found


def arm_importances(arm: ArmRecord, metric: Metric, *, draws: int = 100) -> dict[Name, dict[str, Evaluated]]:
    """`optuna_importances` for the complete search trials of an arm, over all its blocks."""
    from optuna import create_study
    from optuna.trial import create_trial

    domains = {name: _distribution(domain) for name, domain in arm.dimensions.items()}
    complete = [row for row in arm.search() if row.outcome == "complete" and row.value is not None]
    rows = [row for row in complete if set(row.params) <= set(domains)]
    with _quiet():
        study = create_study(direction=metric.direction)
        study.add_trials(
            create_trial(
                params=dict(row.params), distributions={name: domains[name] for name in row.params}, value=row.value
            )
            for row in thinned(rows, MAX_TRIALS)
        )
    return optuna_importances(study, draws=draws)


def study_importances(record: StudyRecord, *, draws: int = 50) -> dict[str, dict[Name, dict[str, Evaluated]]]:
    """`arm_importances` by arm, for each arm with at least five complete search trials: a forest needs that many.

    An arm that Optuna's evaluators reject (choices that are lists, values outside their range) is left out, because
    these figures affect no verdict and must not block those that do.
    """
    found = {}
    for name, arm in record.arms.items():
        if len(scored(arm.search())) >= MIN_TRIALS:
            try:
                found[name] = arm_importances(arm, record.metric, draws=draws)
            except (TypeError, ValueError):
                continue
    return found


def _values(name: Name, like: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """One evaluator's values; empty if it fails (no trials; fANOVA if all values are equal)."""
    return _normalized(_raw_values(name, like, trials))


def _raw_values(
    name: Name, like: optuna.Study, trials: Sequence[FrozenTrial], params: list[str] | None = None
) -> dict[str, float]:
    """The same before they are normalized; `params`: of these parameters alone."""
    from optuna import create_study, importance

    kinds: Mapping[Name, Any] = {
        "PED-ANOVA": importance.PedAnovaImportanceEvaluator,
        "fANOVA": lambda: importance.FanovaImportanceEvaluator(seed=0),
        "MDI": lambda: importance.MeanDecreaseImpurityImportanceEvaluator(seed=0),
    }
    with _quiet():
        study = create_study(direction=like.direction)
        study._storage = cast("BaseStorage", _TrialsOnly(trials))
        try:
            found = importance.get_param_importances(study, evaluator=kinds[name](), params=params, normalize=False)
        except (RuntimeError, ValueError):
            return {}
    return {key: float(value) for key, value in found.items()}


def _normalized(values: Mapping[str, float]) -> dict[str, float]:
    """As Optuna does: values that add up to 1, all the same if all are 0."""
    total = sum(values.values())
    return {name: value / total if total else 1 / len(values) for name, value in values.items()}


class _TrialsOnly:
    """The part of a storage that evaluators use. Optuna's copies each trial: three times an evaluation's cost."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self._trials = [copy.copy(trial) for trial in trials]
        for number, trial in enumerate(self._trials):
            trial._trial_id = number  # a trial that is drawn twice counts twice

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]


def _resampled(
    study: optuna.Study,
    trials: Sequence[FrozenTrial],
    found: Mapping[str, Evaluated],
    draws: int,
    rng: np.random.Generator,
) -> dict[str, Evaluated]:
    """PED-ANOVA with an interval and a null band.

    It takes each parameter by itself, so a permuted column changes the value of its own parameter alone: the others are
    computed once, which makes a report of four parameters 2 s faster.
    """
    raw = _raw_values("PED-ANOVA", study, trials)
    rows = rng.integers(len(trials), size=(draws, len(trials)))
    resampled = [_values("PED-ANOVA", study, [trials[index] for index in row]) for row in rows]
    banded = {}
    for name, one in found.items():
        drawn = [_raw_values("PED-ANOVA", study, _permuted(trials, name, rng), [name]) for _ in range(draws)]
        shuffled = [_normalized(raw | each) for each in drawn]
        interval = _band([values.get(name, 0.0) for values in resampled])
        banded[name] = one._replace(interval=interval, null=_band([values.get(name, 0.0) for values in shuffled]))
    return banded


def _permuted(trials: Sequence[FrozenTrial], name: str, rng: np.random.Generator) -> list[FrozenTrial]:
    """The trials with that parameter's values permuted among the trials that have it."""
    present = [index for index, trial in enumerate(trials) if name in trial.params]
    permuted = list(trials)
    for index, other in zip(present, rng.permutation(present), strict=True):
        permuted[index] = copy.copy(trials[index])
        permuted[index].params = {**trials[index].params, name: trials[other].params[name]}
    return permuted


def _band(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, BAND)
    return float(low), float(high)


def _distribution(domain: Mapping[str, Any]) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "choices" in domain:
        return CategoricalDistribution(domain["choices"])
    low, high, log, step = (domain.get(key) for key in ("low", "high", "log", "step"))
    if isinstance(low, int):
        return IntDistribution(low, int(high or 0), log=bool(log), step=step or 1)
    return FloatDistribution(float(low or 0), float(high or 0), log=bool(log), step=step)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Optuna's messages about the temporary study."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
