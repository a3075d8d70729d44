from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna import pruners, samplers

from ralr_tune.errors import UsageError
from ralr_tune.search.design import SharedSobolSampler
from ralr_tune.search.samplers import longest_run, make_pruner, make_sampler, start_recipe
from ralr_tune.search.space import suggest
from ralr_tune.studyfile import StudySpec
from tests.studies import simulated


def first_params(spec: StudySpec, arm: str, ordinal: int, block: int = 1) -> dict[str, Any]:
    """What the arm's sampler proposes on an empty study."""
    study = optuna.create_study(sampler=make_sampler(spec, arm, block, ordinal))
    return suggest(study.ask(), spec, arm)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tpe", samplers.TPESampler),
        ("random", samplers.RandomSampler),
        ("gp", samplers.GPSampler),
        ("qmc", SharedSobolSampler),
    ],
)
def test_samplers_by_name(name: str, kind: type) -> None:
    assert isinstance(make_sampler(simulated(search={"sampler": name}), "ralr", 1, 0), kind)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("median", pruners.MedianPruner),
        ("asha", pruners.SuccessiveHalvingPruner),
        ("hyperband", pruners.HyperbandPruner),
        ("patient", pruners.PatientPruner),
        ("none", pruners.NopPruner),
    ],
)
def test_pruners_by_name(name: str, kind: type) -> None:
    assert isinstance(make_pruner(simulated(search={"pruner": name})), kind)


def test_options_reach_optuna() -> None:
    spec = simulated(search={"pruner": "median", "pruner_options": {"n_startup_trials": 17}})
    assert make_pruner(spec)._n_startup_trials == 17  # type: ignore[attr-defined]
    spec = simulated(search={"sampler_options": {"n_startup_trials": 3}})
    assert make_sampler(spec, "ralr", 1, 0)._n_startup_trials == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sampler_options": {"startup": 3}}, "search.sampler_options"),
        ({"sampler": "qmc", "sampler_options": {"scramble": False}}, "search.sampler_options"),
        ({"pruner_options": {"warm": 3}}, "search.pruner_options"),
        ({"pruner": "none", "pruner_options": {"x": 1}}, "search.pruner_options"),
        ({"pruner_options": {"n_startup_trials": -1}}, "search.pruner_options"),
    ],
)
def test_options_that_optuna_does_not_accept_are_named(options: dict[str, Any], named: str) -> None:
    spec = simulated(search=options)

    def make_both() -> None:
        make_pruner(spec)
        make_sampler(spec, "ralr", 1, 0)

    with pytest.raises(UsageError, match=named):
        make_both()


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_an_ask_is_reproducible_and_all_asks_differ(sampler: str) -> None:
    spec = simulated(search={"sampler": sampler})
    assert first_params(spec, "ralr", 3) == first_params(spec, "ralr", 3)
    drawn = {first_params(spec, "ralr", ordinal, block)["lr"] for ordinal in range(8) for block in (1, 2)}
    assert len(drawn) == 16


def test_the_shared_design_gives_every_arm_the_same_shared_values() -> None:
    spec = simulated(search={"sampler": "qmc"})
    for ordinal in range(5):
        plain, ralr = first_params(spec, "monotone", ordinal), first_params(spec, "ralr", ordinal)
        assert {name: ralr[name] for name in plain} == plain
        assert set(ralr) > set(plain)


def test_independent_samplers_differ_between_arms() -> None:
    spec = simulated(search={"sampler": "random"})
    assert first_params(spec, "monotone", 0)["lr"] != first_params(spec, "ralr", 0)["lr"]


def test_start_recipes_leave_out_parameters_that_an_arm_does_not_search() -> None:
    start = [{"lr": 0.1, "amplify.width": 2.0}, {"lr": 0.2}]
    spec = simulated(search={"start": start})
    assert start_recipe(spec, "ralr", 0) == start[0]
    assert start_recipe(spec, "monotone", 0) == {"lr": 0.1}
    assert start_recipe(spec, "monotone", 1) == {"lr": 0.2}
    assert start_recipe(spec, "monotone", 2) == {}


def test_the_longest_run_is_the_largest_of_all_arms() -> None:
    assert longest_run(simulated()) == 4
    assert longest_run(simulated(training={"epochs": {"choices": [3, 9]}})) == 9
    assert longest_run(simulated(arms={"monotone": {}, "ralr": {"training": {"epochs": 20}}})) == 20
