"""From the study file's ranges and choices to Optuna's suggestions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

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


def suggest(trial: Trial, space: Mapping[str, Domain]) -> dict[str, Any]:
    """Suggest every parameter of `space`, in its order; a parameter that `trial` already has keeps its value.

    Optuna is not asked again for these: if the range was widened in between, it would report an inconsistency.
    """
    known = trial.params
    return {name: known[name] if name in known else _suggest(trial, name, domain) for name, domain in space.items()}


def _suggest(trial: Trial, name: str, domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return trial.suggest_categorical(name, domain.describe()["choices"])
    if isinstance(domain.low, int):
        return trial.suggest_int(name, domain.low, domain.high, step=domain.step or 1, log=domain.log)
    return trial.suggest_float(name, domain.low, domain.high, step=domain.step, log=domain.log)
