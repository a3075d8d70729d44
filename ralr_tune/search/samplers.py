"""Samplers and pruners as the study file names them.

Before every ask, a new sampler is built and seeded from (study seed, arm, block, ordinal), so that no worker and no
resumed run repeats another's draws (two workers that load a study with the same sampler seed propose identical trials).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from optuna import pruners, samplers
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning

from ralr_tune.errors import UsageError
from ralr_tune.search.design import SharedRandomSampler, SharedSobolSampler
from ralr_tune.search.space import distribution
from ralr_tune.search.widened import WideGP, WideTPE
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.recipes import values_for
from ralr_tune.studyfile.values import encode

Built = TypeVar("Built")

_SEED_LIMIT = 2**32
"""Seeds of numpy's RandomState must be below this."""


def make_sampler(spec: StudySpec, arm: str, block: int, ordinal: int) -> samplers.BaseSampler:
    """The sampler of one ask."""
    options = dict(spec.search.sampler_options)
    if spec.search.sampler == "qmc":
        _refuse_options("sampler", "qmc", options)
        # the seed does not depend on the arm: shared values are the same in all arms
        return SharedSobolSampler(spec.columns(), ordinal=ordinal, seed=derive_seed("design", spec.study.seed, block))
    if spec.search.divided:  # random: the n-th trial of a block has the same shared values in all arms
        _refuse_options("sampler", "random", options)
        return SharedRandomSampler(derive_seed("design", spec.study.seed, block, ordinal))
    space = {name: distribution(domain) for name, domain in spec.space(arm).items()}
    independent = options.get("multivariate") is False or options.get("group")
    kinds: dict[str, Callable[..., samplers.BaseSampler]] = {
        "tpe": samplers.TPESampler if independent else partial(WideTPE, _in_all_trials(spec, arm, space)),
        "random": samplers.RandomSampler,
        "gp": partial(WideGP, space),
    }
    seed = derive_seed("sampler", spec.study.seed, arm, block, ordinal) % _SEED_LIMIT
    return _build("sampler", spec.search.sampler, kinds[spec.search.sampler], options | {"seed": seed})


def _in_all_trials(spec: StudySpec, arm: str, space: Mapping[str, BaseDistribution]) -> Mapping[str, BaseDistribution]:
    """The parameters that every trial of an arm has, whatever its optimizer: TPE models these jointly. It draws each
    of the others by itself, from the trials that have it."""
    return {name: each for name, each in space.items() if name not in spec.conditional(arm)}


def start_recipe(spec: StudySpec, arm: str, ordinal: int) -> dict[str, Any]:
    """Values of the user's own recipe (`search.start`) for this trial of an arm; empty if there is none for it."""
    if ordinal >= len(spec.search.start):
        return {}
    space = spec.space(arm)
    values = values_for(spec, arm, spec.search.start[ordinal])
    return {each.name: encode(each.value) for each in values if each.name in space}


def make_pruner(spec: StudySpec) -> pruners.BasePruner:
    """The pruner of a study, rebuilt from its file; `patient` wraps the median pruner (our choice)."""
    options = dict(spec.search.pruner_options)
    match spec.search.pruner:
        case "none":
            _refuse_options("pruner", "none", options)
            return pruners.NopPruner()
        case "median":
            return _build("pruner", "median", pruners.MedianPruner, options)
        case "asha":
            return _build("pruner", "asha", pruners.SuccessiveHalvingPruner, options)
        case "hyperband":
            return _build("pruner", "hyperband", pruners.HyperbandPruner, {"max_resource": longest_run(spec)} | options)
        case "patient":
            defaults = {"wrapped_pruner": pruners.MedianPruner(), "patience": 3}
            return _build("pruner", "patient", pruners.PatientPruner, defaults | options)


def longest_run(spec: StudySpec) -> int:
    """The largest number of epochs that a trial of this study can have."""
    epochs = spec.file.training.epochs
    own = [arm.training.epochs for arm in spec.arms.values() if arm.training and arm.training.epochs]
    return max(_largest(value) for value in [epochs, *own])


def _largest(value: Any) -> int:
    return int(max(getattr(value, "choices", None) or [getattr(value, "high", value)]))


def _build(what: str, name: str, kind: Callable[..., Built], options: Mapping[str, Any]) -> Built:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return kind(**options)
    except (TypeError, ValueError) as error:
        given = {key: value for key, value in options.items() if key != "seed"}
        raise UsageError(f"search.{what}_options = {given}: {name} does not accept them: {error}") from None


def _refuse_options(what: str, name: str, options: Mapping[str, Any]) -> None:
    if options:
        raise UsageError(f"search.{what}_options = {dict(options)}: {name} has no options; remove them")
