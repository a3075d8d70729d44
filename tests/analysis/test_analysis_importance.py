from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import optuna
import pytest
from synthetic_study import make_record

from ralr_tune.analysis.additive import Array, Column
from ralr_tune.analysis.importance import Importance, arm_importance, array_importance, comparison_epoch, importance
from ralr_tune.records import Row


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def columns(u: Array) -> dict[str, Column]:
    return {
        "lr": Column("log", list(10 ** (3 * u[:, 0] - 3))),
        "weak": Column("linear", list(u[:, 1])),
        "ignored": Column("linear", list(u[:, 2])),
    }


def simulated(seed: int, *, cliff: bool = False, trials: int = 50) -> dict[str, Importance]:
    """A dominant rate, a parameter of 8 times the noise, one without effect."""
    random = np.random.default_rng([11, seed])
    u = random.random((trials, 3))
    dominant = 80 / (1 + np.exp((u[:, 0] - 0.7) / 0.03)) if cliff else -120 * (u[:, 0] - 0.6) ** 2
    return array_importance(columns(u), dominant + 8 * u[:, 1] + random.normal(size=trials))


@pytest.mark.parametrize("cliff", [False, True])
def test_calibrated_on_200_studies(cliff: bool) -> None:
    found = [simulated(seed, cliff=cliff) for seed in range(200)]
    matters = Counter(name for study in found for name, one in study.items() if one.verdict == "matters")
    assert matters["ignored"] <= 0.05 * 200
    assert matters["weak"] >= 0.8 * 200
    assert matters["lr"] == 200


def test_dominant_is_larger_than_weak_and_inside_its_interval() -> None:
    found = simulated(0)
    assert found["lr"].value > 0.7
    assert 0.2 > found["weak"].value > found["weak"].null[1]
    for one in found.values():
        assert 0 <= one.interval[0] <= one.value <= one.interval[1] <= 1


def test_is_deterministic() -> None:
    assert simulated(3) == simulated(3)


def test_choices_count_and_their_order_does_not() -> None:
    random = np.random.default_rng(2)
    choice = random.choice(["sgd", "adam", "rmsprop"], 60)
    values = 3.0 * (choice == "adam") + random.normal(size=60)
    other = list(random.choice(["a", "b"], 60))
    found = array_importance({"optimizer": Column("choice", list(choice)), "other": Column("choice", other)}, values)
    assert found["optimizer"].verdict == "matters"
    assert found["other"].verdict == "indistinguishable"


def test_too_few_trials_say_nothing() -> None:
    assert {one.verdict for one in simulated(0, trials=9).values()} == {"too little evidence"}


def test_nothing_found_in_a_small_study_is_no_evidence_of_nothing() -> None:
    random = np.random.default_rng(0)
    found = array_importance(columns(random.random((12, 3))), random.normal(size=12))
    assert {one.verdict for one in found.values()} == {"too little evidence"}


def test_fixed_parameters_and_equal_scores_say_nothing() -> None:
    random = np.random.default_rng(0)
    u = random.random((40, 3))
    fixed = columns(u) | {"fixed": Column("linear", [3.0] * 40)}
    found = array_importance(fixed, u[:, 0] + 0.1 * random.normal(size=40))
    assert (found["fixed"].value, found["fixed"].verdict) == (0.0, "too little evidence")
    assert found["lr"].verdict == "matters"
    assert {one.verdict for one in array_importance(fixed, np.ones(40)).values()} == {"too little evidence"}


def test_parameters_that_determine_each_other_cannot_be_told_apart() -> None:
    random = np.random.default_rng(0)
    x = list(random.random(40))
    found = array_importance({"a": Column("linear", x), "b": Column("linear", x)}, np.array(x))
    assert {one.verdict for one in found.values()} == {"too little evidence"}


def test_few_distinct_values_and_many_parameters_are_no_trouble() -> None:
    random = np.random.default_rng(0)
    batch = random.choice([32, 64, 128], 30)
    found = array_importance({"batch": Column("log", list(batch))}, np.log(batch) + 0.1 * random.normal(size=30))
    assert found["batch"].verdict == "matters"
    many = {f"p{i}": Column("linear", list(random.random(30))) for i in range(40)}
    assert {one.verdict for one in array_importance(many, random.random(30)).values()} == {"too little evidence"}


def test_trials_are_compared_where_four_fifths_arrived() -> None:
    assert comparison_epoch([12] * 8 + [3, 2]) == 12
    assert comparison_epoch([12] * 7 + [3, 2, 1]) == 3
    assert comparison_epoch([]) is None


def test_arm_leaves_out_diverged_and_failed_trials() -> None:
    arm = make_record(until="searched").arms["ralr"]
    assert any(row.outcome == "diverged" for row in arm.rows)
    found = arm_importance(arm)
    assert set(found) == set(arm.dimensions)
    assert found["lr"].trials == sum(row.outcome in ("complete", "pruned") for row in arm.search())
    assert found["lr"].verdict == "matters"
    assert found["lr"].epoch == 4  # where the pruned ones stopped


def test_arm_without_finished_trials() -> None:
    for until in ("planned", "searching"):
        record = make_record(until=until, trials=6)
        assert {one.verdict for one in arm_importance(record.arms["ralr"]).values()} == {"too little evidence"}


def test_one_valued_dimension_of_an_arm() -> None:
    def fix(row: Row) -> Row:
        return replace(row, params={**row.params, "weight_decay": 1e-4})

    found = arm_importance(make_record(until="searched", change=fix).arms["monotone"])
    assert (found["weight_decay"].value, found["weight_decay"].verdict) == (0.0, "too little evidence")


def foreign_study(*, prune: bool, trials: int = 50) -> optuna.Study:
    """Somebody's own: steps from 0, a choice that does nothing, some values that are not finite."""
    random = np.random.default_rng(5)
    study = optuna.create_study(
        direction="minimize",
        sampler=optuna.samplers.RandomSampler(seed=5),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
    )
    for number in range(trials):
        trial = study.ask()
        lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        trial.suggest_categorical("flip", [True, False])
        final = (math.log10(lr) + 2) ** 2 + 0.05 * random.normal()
        for step in range(8):
            trial.report(final + 2 / (step + 1) + 0.05 * random.normal(), step)
            if prune and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, math.inf if number == 7 else final)
    return study


def test_any_optuna_study_without_pruning() -> None:
    found = importance(foreign_study(prune=False))
    assert found["lr"].verdict == "matters"
    assert found["flip"].verdict == "indistinguishable"
    assert found["lr"].epoch is None
    assert found["lr"].trials == 49  # the infinite one is left out


def test_any_optuna_study_with_pruning() -> None:
    study = foreign_study(prune=True)
    assert any(trial.state.name == "PRUNED" for trial in study.trials)
    found = importance(study)
    assert found["lr"].verdict == "matters"
    assert found["flip"].verdict == "indistinguishable"
    assert found["lr"].epoch is not None
    assert found["lr"].epoch < 7


def test_conditional_parameters_cannot_be_judged() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(30):
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        if number % 2:
            trial.suggest_float("sometimes", 0, 1)
        study.tell(trial, x)
    found = importance(study)
    assert found["x"].verdict == "matters"
    assert found["sometimes"].verdict == "too little evidence"


def test_empty_and_multi_objective_studies() -> None:
    assert importance(optuna.create_study()) == {}
    with pytest.raises(ValueError, match="2 objectives, allowed: 1"):
        importance(optuna.create_study(directions=["minimize", "maximize"]))
