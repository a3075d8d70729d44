from __future__ import annotations

import logging
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


def test_a_divided_random_search_shares_its_values_between_arms_and_not_between_blocks() -> None:
    spec = simulated(search={"sampler": "random", "trials": 8, "blocks": 2, "divided": True})
    found = {
        (arm, block, ordinal): first_params(spec, arm, ordinal, block)
        for arm in spec.arms
        for block in (1, 2)
        for ordinal in (0, 1)
    }
    for block in (1, 2):
        for ordinal in (0, 1):
            own, other = found["monotone", block, ordinal], found["ralr", block, ordinal]
            assert own == {name: other[name] for name in own}
    assert len({params["lr"] for params in found.values()}) == 4
    draws = [first_params(spec, "ralr", ordinal)["amplify.lower"] for ordinal in range(200)]
    assert 1.4 < sum(draws) / len(draws) < 1.6


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


OPTIMIZERS = {
    "optimizer": {"choices": ["sgd", "adamw"]},
    "momentum": {"low": 0.5, "high": 0.9},
    "betas": {"choices": [[0.9, 0.999], [0.8, 0.9]]},
    "optimizers": {"adamw": {"lr": {"low": 1e-4, "high": 1e-3, "log": True}}},
}
OWN = {"sgd": {"lr", "momentum"}, "adamw": {"optimizers.adamw.lr", "betas"}}


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_a_trial_has_only_the_parameters_of_its_optimizer(sampler: str, caplog: pytest.LogCaptureFixture) -> None:
    spec = simulated(training=OPTIMIZERS, search={"sampler": sampler, "trials": 30})
    study, seen = optuna.create_study(), set()
    for ordinal in range(25):  # TPE models the search from its 11th trial on
        study.sampler = make_sampler(spec, "monotone", 1, ordinal)
        trial = study.ask()
        found = suggest(trial, spec, "monotone")
        assert found.keys() == {"optimizer", "weight_decay", *OWN[found["optimizer"]]}
        spec.configuration("monotone", found)
        seen.add(found["optimizer"])
        study.tell(trial, spec.configuration("monotone", found).training.lr)
    assert seen == set(OWN)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_gp_draws_every_parameter_of_one_space() -> None:
    spec = simulated(training=OPTIMIZERS, search={"sampler": "gp"})
    found = first_params(spec, "monotone", 0)
    assert found.keys() == spec.space("monotone").keys()
    assert set(spec.configuration("monotone", found).training.options) == (
        {"momentum"} if found["optimizer"] == "sgd" else {"betas"}
    )


def test_qmc_gives_all_arms_the_same_values_of_conditional_parameters() -> None:
    spec = simulated(training=OPTIMIZERS, search={"sampler": "qmc"})
    for ordinal in range(6):
        one, other = (first_params(spec, arm, ordinal) for arm in ("monotone", "ralr"))
        assert one == {name: other[name] for name in one}
