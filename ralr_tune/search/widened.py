"""Samplers that follow a range when the study file widens it.

Optuna infers a sampler's search space from the finished trials and leaves out every parameter whose range differs
between them. After `lr` was widened, TPE would propose it within the old range until a trial with the new range is
complete, and independently of all other parameters from then on; GP would draw it at random for the rest of the study.
Here the study file defines the space, so nothing needs to be inferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

Space = dict[str, BaseDistribution]


class WideTPE(TPESampler):
    """TPE over the whole of `space` with its current ranges. Not for `multivariate = false` or `group = true`."""

    def __init__(self, space: Mapping[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        self._space = _modelled(space)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:
        return _whole(self._space, super().infer_relative_search_space(study, trial), study)


class WideGP(GPSampler):
    """GP over the whole of `space` with its current ranges."""

    def __init__(self, space: Mapping[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        self._space = _modelled(space)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:
        return _whole(self._space, super().infer_relative_search_space(study, trial), study)


def _modelled(space: Mapping[str, BaseDistribution]) -> Space:
    """What Optuna infers if no range has changed: sorted by name, without parameters that have a single value."""
    return {name: space[name] for name in sorted(space) if not space[name].single()}


def _whole(space: Space, inferred: Space, study: Study) -> Space:
    """`space` once a trial is complete; before that there is nothing to model, and Optuna infers an empty space."""
    if inferred or study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return dict(space)
    return inferred
