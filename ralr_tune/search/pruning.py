"""Which curves the pruner sees: the raw values, a moving average of them, or the best value so far; of the study's
metric, or of another one that trials measure every epoch (`search.prune_metric`).

The database keeps raw reports, final values and curves, and the sampler sees only these. The pruner sees all trials of
its study transformed, both the trial in question and those that it compares it with. What a pruner stores (ASHA and
Hyperband store the value of each rung) is the transformed value.

With another metric, the pruner works in the direction of that metric. Optuna's reports, final values and direction
stay those of the study's metric; the other curve of a finished trial is one of its user attributes.

Optuna's median pruner compares a trial's best value so far with the median of the other trials at this epoch, whatever
the transformation: on "best" it prunes every trial that it prunes on "value", and more. ASHA and Hyperband compare a
trial's value at the rung with the others' values there.

The value after an epoch with an amplified rate says less about a trial: it jitters, and in early epochs one bad value
is enough to be pruned. The median pruner, also inside the patient one, therefore waits for the next epoch, and the
trial's best so far leaves out the epoch that was waited for (our choice, measured in LOG.md). Other trials keep all
epochs: their median is robust. ASHA and Hyperband do not wait: a later value at a rung would be compared with earlier
ones, which was measured to be wrong far more often.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from ralr_tune.metric import Metric
from ralr_tune.records import EpochRecord
from ralr_tune.seeds import derive_seed
from ralr_tune.store.retrying import ended_only
from ralr_tune.studyfile import Configuration, StudySpec
from ralr_tune.studyfile.sections import PruneOn

SMOOTHING = 0.6
"""Weight of the past in the moving average: TensorBoard's default. Its memory is 1 / (1 - 0.6) = 2.5 epochs."""

WAITING = ("median", "patient")
"""Pruners that wait after amplified epochs."""

Curve = Mapping[int, float]
"""Values by step."""
Transform = Callable[[Curve, StudyDirection], dict[int, float]]
"""Turns a curve into what the pruner sees, by the same steps."""


def smoothed(curve: Curve, direction: StudyDirection) -> dict[int, float]:
    """Exponential moving average over the reports so far: m_t = SMOOTHING m_(t-1) + (1 - SMOOTHING) v_t, m_0 = 0.

    Divided by 1 - SMOOTHING**t, which corrects the bias of starting at 0 (Kingma and Ba 2015, section 3): the first
    value is unchanged. A NaN stays NaN and does not enter the average.
    """
    average, weight, shown = 0.0, 0.0, {}
    for step, value in sorted(curve.items()):
        if not math.isnan(value):
            average = SMOOTHING * average + (1 - SMOOTHING) * value
            weight = SMOOTHING * weight + (1 - SMOOTHING)
        shown[step] = value if math.isnan(value) else average / weight
    return shown


def best_so_far(curve: Curve, direction: StudyDirection) -> dict[int, float]:
    """The best value up to each step; NaN before the first value that is not NaN."""
    better = max if direction == StudyDirection.MAXIMIZE else min
    best, shown = math.nan, {}
    for step, value in sorted(curve.items()):
        best = value if math.isnan(best) else best if math.isnan(value) else better(best, value)
        shown[step] = best
    return shown


def unchanged(curve: Curve, direction: StudyDirection) -> dict[int, float]:
    """The curve itself."""
    return dict(curve)


def amplified_epochs(spec: StudySpec, configuration: Configuration, seed: int) -> frozenset[int]:
    """The epochs, from 1, of a trial with this training seed after which the pruner may wait.

    A pure function of its arguments, so that a resumed trial waits at the same epochs. Empty with a pruner that does
    not wait, and at step granularity, where all epochs are amplified about as much.
    """
    amplify = configuration.amplify
    if spec.search.pruner not in WAITING or amplify is None or amplify.granularity == "step":
        return frozenset()
    rate = configuration.learning_rate(1, seed=derive_seed("amplify", seed))
    return frozenset((np.flatnonzero(rate.factor_trace()[:, 0] > 1) + 1).tolist())


def waited(steps: Sequence[int], amplified: Container[int]) -> set[int]:
    """Those of the steps, in their order, after which a trial is not judged: amplified ones, but never two in a row, so
    that a trial that amplifies often is judged, too."""
    found, waits = set(), False
    for step in steps:
        waits = step in amplified and not waits
        if waits:
            found.add(step)
    return found


_TRANSFORMS: Mapping[PruneOn, Transform] = {"value": unchanged, "smoothed": smoothed, "best": best_so_far}


class Judge:
    """Decides with a study's pruner whether to prune its trials.

    A wrapper around the pruner would not work: Optuna's samplers check whether the study's pruner is a HyperbandPruner.
    """

    def __init__(self, study: Study, prune_on: PruneOn, metric: Metric | None = None) -> None:
        """`metric`: what the pruner sees in place of the study's metric."""
        self._pruner, self._view = study.pruner, copy.copy(study)
        read = cast(BaseStorage, _ReadTrials(study._storage))
        self._trials, self._view._storage = None, read
        if prune_on == "value" and metric is None:
            return
        direction = study.direction if metric is None else StudyDirection[metric.direction.upper()]
        self._trials = _ShownTrials(read, _TRANSFORMS[prune_on], direction, metric)
        self._view._storage, self._view._directions = cast(BaseStorage, self._trials), [direction]

    def should_prune(
        self, trial: Trial, curve: Sequence[EpochRecord] = (), amplified: Container[int] = frozenset()
    ) -> bool:
        """As `Trial.should_prune`, on what the pruner sees. `curve`: the trial's epochs, whose further metrics Optuna
        does not have before its end. `amplified`: see `amplified_epochs`."""
        own = trial._get_latest_trial()
        if self._trials is not None:
            own = self._trials.own(own, curve)
        hidden = waited(sorted(own.intermediate_values), amplified)
        if own.last_step in hidden:
            return False
        values = {step: value for step, value in own.intermediate_values.items() if step not in hidden}
        return self._pruner.prune(self._view, _with_values(own, values))


def other_curve(metric: Metric, curve: Sequence[EpochRecord]) -> dict[str, list[tuple[int, float | None]]]:
    """The user attribute with a finished trial's values of the metric that the pruner sees: [epoch, value] of every
    epoch that was evaluated."""
    values = ((record.epoch, record.others.get(metric.name, math.nan)) for record in curve)
    return {_attribute(metric): [(epoch, value if math.isfinite(value) else None) for epoch, value in values]}


def _attribute(metric: Metric) -> str:
    return f"{metric.name} by epoch"


class _ReadTrials:
    """A study's storage, which reads the running trials again only if the pruner asks for them: ASHA and Hyperband do,
    at their rungs; the median pruner compares with ended trials, after every epoch."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        running = states is None or TrialState.RUNNING in states
        with nullcontext() if running else ended_only():
            return self._storage.get_all_trials(study_id, deepcopy=deepcopy, states=states)


class _ShownTrials:
    """A study's storage with the intermediate values and the direction that the pruner sees; all other calls go to the
    storage itself.

    It replaces the storage and not the study, since Hyperband builds a study for each bracket on the same storage.
    """

    def __init__(
        self, storage: BaseStorage, transform: Transform, direction: StudyDirection, metric: Metric | None
    ) -> None:
        self._storage, self._transform, self._direction, self._metric = storage, transform, direction, metric
        self._finished: dict[int, dict[int, float]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [self._direction]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = self._storage.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [self._shown(trial) for trial in trials]

    def own(self, trial: FrozenTrial, curve: Sequence[EpochRecord]) -> FrozenTrial:
        """The trial in question, which is running."""
        metric = self._metric
        values = trial.intermediate_values
        if metric is not None:
            values = {record.epoch: record.others.get(metric.name, math.nan) for record in curve}
        return _with_values(trial, self._transform(values, self._direction))

    def _shown(self, trial: FrozenTrial) -> FrozenTrial:
        """A copy of any trial; the stored trial is not changed."""
        curve = self._finished.get(trial._trial_id)
        if curve is None:
            curve = self._transform(self._stored(trial), self._direction)
            if trial.state.is_finished():
                self._finished[trial._trial_id] = curve
        return _with_values(trial, curve)

    def _stored(self, trial: FrozenTrial) -> Curve:
        """Of a running trial, no pruner of Optuna reads values other than those that the pruner itself stored."""
        if self._metric is None:
            return trial.intermediate_values
        stored = trial.user_attrs.get(_attribute(self._metric), ())
        return {epoch: math.nan if value is None else value for epoch, value in stored}


def _with_values(trial: FrozenTrial, values: dict[int, float]) -> FrozenTrial:
    shown = copy.copy(trial)
    shown.intermediate_values = values
    return shown
