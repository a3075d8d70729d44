"""Samplers that choose among what a world offers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from benchmarks.decisions.worlds import ARMS, Params
from ralr_tune.search.space import distribution
from ralr_tune.studyfile import StudySpec


class Offers(Protocol):
    """What of a world a sampler needs (see `World`)."""

    @property
    def spec(self) -> StudySpec: ...

    def offered(self, params: Params, tried: Collection[Params]) -> Params: ...


class Offered(BaseSampler):
    """A sampler of Optuna whose whole proposal is replaced by the configuration that the world offers for it.

    The trial has the offered parameters, so that the sampler learns from what was really trained. No configuration is
    offered twice in a search.
    """

    def __init__(self, world: Offers, sampler: BaseSampler) -> None:
        self._world, self._sampler = world, sampler
        self._space = space_of(world)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        own = self._sampler.infer_relative_search_space(study, trial)
        found = self._sampler.sample_relative(study, trial, own)
        for name, domain in self._space.items():
            if name not in found:
                found[name] = self._sampler.sample_independent(study, trial, name, domain)
        tried = [each.params for each in study.get_trials(deepcopy=False) if each.number != trial.number]
        return dict(self._world.offered(found, tried))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise AssertionError(f"{param_name}: not in the world's space")

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self._sampler.after_trial(study, trial, state, values)


def space_of(world: Offers) -> dict[str, BaseDistribution]:
    """Optuna's distributions of the world's parameters."""
    space: Mapping[str, Any] = world.spec.space(ARMS[0])
    return {name: distribution(domain) for name, domain in space.items()}
