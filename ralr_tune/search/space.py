"""From the study file's ranges and choices to Optuna's suggestions."""

from __future__ import annotations

from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.values import Choice, Domain, Range


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's distribution of a domain; integer ranges stay integer."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.describe()["choices"])
    return _range(domain)


def _range(domain: Range[Any]) -> BaseDistribution:
    if isinstance(domain.low, int):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step or 1)
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def suggest(trial: Trial, spec: StudySpec, arm: str) -> dict[str, Any]:
    """Suggest every parameter that a trial of this arm uses, in their order; a parameter that `trial` already has keeps
    its value.

    Optuna is not asked again for these: if the range was widened in between, it would report an inconsistency. A trial
    has no parameter of an optimizer that it does not train with, except with the GP sampler, which models one space for
    all trials.
    """
    found: dict[str, Any] = {}
    space = spec.space(arm)
    for name, domain in space.items():
        if spec.search.sampler == "gp" or name in spec.used_space(arm, found):
            found[name] = trial.params[name] if name in trial.params else _suggest(trial, name, domain)
    return found


def _suggest(trial: Trial, name: str, domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return trial.suggest_categorical(name, domain.describe()["choices"])
    if isinstance(domain.low, int):
        return trial.suggest_int(name, domain.low, domain.high, step=domain.step or 1, log=domain.log)
    return trial.suggest_float(name, domain.low, domain.high, step=domain.step, log=domain.log)
