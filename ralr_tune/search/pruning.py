"""Which curves the pruner sees: the raw values, a moving average of them, or the best value so far.

The database keeps raw reports, final values and curves, and the sampler sees only these. The pruner sees all trials of
its study transformed, both the trial in question and those that it compares it with. What a pruner stores (ASHA and
Hyperband store the value of each rung) is the transformed value.

Optuna's median pruner compares a trial's best value so far with the median of the other trials at this epoch, whatever
the transformation: on "best" it prunes every trial that it prunes on "value", and more. ASHA and Hyperband compare a
trial's value at the rung with the others' values there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Container, Mapping
from typing import Any, cast

from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from ralr_tune.studyfile.sections import PruneOn

SMOOTHING = 0.6
"""Weight of the past in the moving average: TensorBoard's default. Its memory is 1 / (1 - 0.6) = 2.5 epochs."""

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


_TRANSFORMS: Mapping[PruneOn, Transform] = {"smoothed": smoothed, "best": best_so_far}


class Judge:
    """Decides with a study's pruner whether to prune its trials.

    A wrapper around the pruner would not work: Optuna's samplers check whether the study's pruner is a HyperbandPruner.
    """

    def __init__(self, study: Study, prune_on: PruneOn) -> None:
        self._pruner, self._view = study.pruner, None
        if prune_on != "value":
            self._trials = _TransformedTrials(study._storage, _TRANSFORMS[prune_on], study.direction)
            self._view = copy.copy(study)
            self._view._storage = cast(BaseStorage, self._trials)

    def should_prune(self, trial: Trial) -> bool:
        """As `Trial.should_prune`, on the transformed curves."""
        if self._view is None:
            return trial.should_prune()
        return self._pruner.prune(self._view, self._trials.transformed(trial._get_latest_trial()))


class _TransformedTrials:
    """A study's storage with transformed intermediate values; all other calls go to the storage itself.

    It replaces the storage and not the study, since Hyperband builds a study for each bracket on the same storage.
    """

    def __init__(self, storage: BaseStorage, transform: Transform, direction: StudyDirection) -> None:
        self._storage, self._transform, self._direction = storage, transform, direction
        self._finished: dict[int, dict[int, float]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = self._storage.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [self.transformed(trial) for trial in trials]

    def transformed(self, trial: FrozenTrial) -> FrozenTrial:
        """A copy of the trial with transformed values; the stored trial is not changed."""
        curve = self._finished.get(trial._trial_id)
        if curve is None:
            curve = self._transform(trial.intermediate_values, self._direction)
            if trial.state.is_finished():
                self._finished[trial._trial_id] = curve
        shown = copy.copy(trial)
        shown.intermediate_values = curve
        return shown
