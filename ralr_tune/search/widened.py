"""Samplers that follow a range when the study file widens it.

Optuna infers the space that a sampler models from the finished trials, and leaves out every parameter that has another
range in some of them. After `lr` was widened, TPE would still propose it within the old range until a trial with the
new one is complete, and apart from all other parameters from then on; GP would draw it at random for the rest of the
study. Our spaces are known from the study file, so that nothing need be inferred.
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
    """TPE over the whole of `space`, as wide as it is now. Not for `multivariate = false` or `group = true`."""

    def __init__(self, space: Mapping[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        self._now = _modelled(space)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:
        return _whole(self._now, super().infer_relative_search_space(study, trial), study)


class WideGP(GPSampler):
    """GP over the whole of `space`, as wide as it is now."""

    def __init__(self, space: Mapping[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        self._now = _modelled(space)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:
        return _whole(self._now, super().infer_relative_search_space(study, trial), study)


def _modelled(space: Mapping[str, BaseDistribution]) -> Space:
    """What Optuna infers where no range has changed: by name, without parameters that can only be one thing."""
    return {name: space[name] for name in sorted(space) if not space[name].single()}


def _whole(space: Space, inferred: Space, study: Study) -> Space:
    """`space`, once a trial is complete; before that there is nothing to model, and Optuna infers nothing."""
    if inferred or study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return dict(space)
    return inferred
