from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from synthetic_study import make_record

from ralr_tune.analysis.evaluators import Evaluated, arm_importances, optuna_importances, study_importances
from ralr_tune.errors import UsageError
from tests.metrics import ACCURACY


def made(*, trials: int = 30, effect: float = 1.0, directions: int = 1) -> optuna.Study:
    """`x` acts, `ignored` does not; every fifth trial has no number."""
    random = np.random.default_rng(0)
    study = optuna.create_study(directions=["minimize"] * directions, sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(trials):
        trial = study.ask()
        x = trial.suggest_float("x", 1e-3, 1, log=True)
        trial.suggest_categorical("ignored", [None, "a"])
        value = math.inf if number % 5 == 4 else effect * (math.log10(x) + 0.01 * random.normal())
        study.tell(trial, [value] * directions)
    return study


def test_each_evaluator_finds_the_effective_parameter() -> None:
    found = optuna_importances(made(), draws=0)
    assert list(found) == ["PED-ANOVA", "fANOVA", "MDI"]
    for values in found.values():
        assert values["x"].value > values["ignored"].value
        assert sum(one.value for one in values.values()) == pytest.approx(1)
        assert {(one.interval, one.null) for one in values.values()} == {(None, None)}


def test_ped_anova_has_an_interval_and_a_null_band_and_the_others_have_none() -> None:
    study = made()
    before = [trial.params for trial in study.trials]
    found = optuna_importances(study, draws=20)
    one = found["PED-ANOVA"]["x"]
    assert one.interval is not None
    assert one.null is not None
    assert 0 <= one.interval[0] < one.interval[1] <= 1
    assert one.null[1] < one.value
    assert found["fANOVA"]["x"].null is found["MDI"]["x"].interval is None
    assert found == optuna_importances(study, draws=20)
    assert [trial.params for trial in study.trials] == before


def test_values_are_those_of_optuna() -> None:
    study = made()
    assert optuna_importances(study, draws=0)["PED-ANOVA"] == {
        name: Evaluated(value) for name, value in optuna.importance.get_param_importances(study).items()
    }


def test_an_evaluator_that_fails_has_no_values() -> None:
    """fANOVA raises at zero variance."""
    found = optuna_importances(made(effect=0.0), draws=0)
    assert found["fANOVA"] == {}
    assert set(found["PED-ANOVA"]) == {"x", "ignored"}
    assert all(found == {} for found in optuna_importances(optuna.create_study()).values())


def test_large_studies_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ralr_tune.analysis.evaluators.MAX_TRIALS", 20)
    few = made(trials=40)
    assert optuna_importances(few, draws=0)["PED-ANOVA"] != {
        name: Evaluated(value) for name, value in optuna.importance.get_param_importances(few).items()
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"study": "study"}, r"study = 'study': must be an optuna.Study"),
        ({"draws": -1}, "draws = -1: must be a whole number, 0 or more"),
        ({"draws": 1.5}, "draws = 1.5: "),
        ({"seed": -1}, "seed = -1: "),
        ({"seed": None}, "seed = None: "),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        optuna_importances(**{"study": made(trials=1)} | arguments)


def test_several_objectives_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^study.directions = \['minimize', 'minimize'\]: "):
        optuna_importances(made(directions=2))


def test_importances_of_an_arm() -> None:
    record = make_record(until="searched")
    for arm in record.arms.values():
        found = arm_importances(arm, record.metric)
        assert list(found) == ["PED-ANOVA", "fANOVA", "MDI"]
        assert all(set(values) == set(arm.dimensions) for values in found.values())
    assert all(values == {} for values in arm_importances(make_record(until="planned").arms["ralr"], ACCURACY).values())


def test_importances_of_a_study_by_arm_if_possible() -> None:
    record = make_record(until="searched", trials=40)
    ralr = record.arms["ralr"]
    strange = replace(ralr, dimensions={**ralr.dimensions, "lr": {"low": 0.5, "high": 0.6}})
    found = study_importances(replace(record, arms={**record.arms, "ralr": strange}))
    assert set(found) == {"monotone"}
    assert set(found["monotone"]["fANOVA"]) == {"lr", "weight_decay"}
    assert study_importances(make_record(until="searched", trials=4)) == {}


def test_the_log_level_of_optuna_is_restored() -> None:
    before = optuna.logging.get_verbosity()
    optuna_importances(made(), draws=1)
    assert optuna.logging.get_verbosity() == before
