from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from synthetic_study import make_record

from ralr_tune.analysis.additive import Array, Column
from ralr_tune.analysis.evaluators import optuna_importances
from ralr_tune.analysis.importance import (
    Importance,
    Observed,
    arm_importance,
    array_importance,
    comparison_epoch,
    importance,
    ranks,
    thinned,
)
from ralr_tune.errors import UsageError
from ralr_tune.records import Row
from tests.metrics import ACCURACY


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


def test_choices_matter_and_their_order_does_not() -> None:
    random = np.random.default_rng(2)
    choice = random.choice(["sgd", "adam", "rmsprop"], 60)
    values = 3.0 * (choice == "adam") + random.normal(size=60)
    other = list(random.choice(["a", "b"], 60))
    found = array_importance({"optimizer": Column("choice", list(choice)), "other": Column("choice", other)}, values)
    assert found["optimizer"].verdict == "matters"
    assert found["other"].verdict == "indistinguishable"


def test_too_few_trials_are_too_little_evidence() -> None:
    assert {one.verdict for one in simulated(0, trials=9).values()} == {"too little evidence"}


def test_no_effect_in_a_small_study_is_too_little_evidence() -> None:
    random = np.random.default_rng(0)
    found = array_importance(columns(random.random((12, 3))), random.normal(size=12))
    assert {one.verdict for one in found.values()} == {"too little evidence"}


def test_fixed_parameters_and_equal_scores_are_too_little_evidence() -> None:
    random = np.random.default_rng(0)
    u = random.random((40, 3))
    fixed = columns(u) | {"fixed": Column("linear", [3.0] * 40)}
    found = array_importance(fixed, u[:, 0] + 0.1 * random.normal(size=40))
    assert (found["fixed"].value, found["fixed"].verdict) == (0.0, "too little evidence")
    assert found["lr"].verdict == "matters"
    assert {one.verdict for one in array_importance(fixed, np.ones(40)).values()} == {"too little evidence"}


def test_parameters_that_determine_each_other_cannot_be_separated() -> None:
    random = np.random.default_rng(0)
    x = list(random.random(40))
    found = array_importance({"a": Column("linear", x), "b": Column("linear", x)}, np.array(x))
    assert {one.verdict for one in found.values()} == {"too little evidence"}


def test_few_distinct_values_and_many_parameters_work() -> None:
    random = np.random.default_rng(0)
    batch = random.choice([32, 64, 128], 30)
    found = array_importance({"batch": Column("log", list(batch))}, np.log(batch) + 0.1 * random.normal(size=30))
    assert found["batch"].verdict == "matters"
    many = {f"p{i}": Column("linear", list(random.random(30))) for i in range(40)}
    found = array_importance(many, random.random(30))
    assert Counter(one.verdict for one in found.values())["matters"] <= 4


def test_in_small_studies_the_effect_is_not_attributed_to_columns_that_fit_by_chance() -> None:
    """Without the charge for each column that enters, 34 of these 60 studies find it; with it, 46."""
    verdicts = []
    for seed in range(60):
        random = np.random.default_rng([13, seed])
        u = random.random((20, 6))
        scores = u[:, 0] + 0.3 * random.normal(size=20)
        found = array_importance({f"p{i}": Column("linear", list(u[:, i])) for i in range(6)}, scores)
        verdicts += [(name == "p0", one.verdict) for name, one in found.items()]
    assert verdicts.count((True, "matters")) >= 0.7 * 60
    assert verdicts.count((False, "matters")) <= 0.05 * 300


def test_in_large_studies_a_weak_effect_does_not_make_a_correlated_column_matter() -> None:
    """With the charge for each column that enters, 7 of these 60 studies call it; without, none."""
    called = 0
    for seed in range(60):
        random = np.random.default_rng([17, seed])
        u = random.normal(size=(100, 5))
        follows = u[:, 0] + 0.2 * u[:, 1]
        named = {f"p{i}": Column("linear", list(x)) for i, x in enumerate([u[:, 0], follows, *u[:, 2:].T])}
        called += array_importance(named, 0.2 * u[:, 0] + random.normal(size=100))["p1"].verdict == "matters"
    assert called <= 0.05 * 60


def test_the_reported_epoch_is_the_last_that_80_percent_reached() -> None:
    assert comparison_epoch([12] * 8 + [3, 2]) == 12
    assert comparison_epoch([12] * 7 + [3, 2, 1]) == 3
    assert comparison_epoch([]) is None


def test_arm_leaves_out_diverged_and_failed_trials() -> None:
    arm = make_record(until="searched").arms["ralr"]
    assert any(row.outcome == "diverged" for row in arm.rows)
    found = arm_importance(arm, ACCURACY)
    assert set(found) == set(arm.dimensions)
    assert found["lr"].trials == sum(row.outcome in ("complete", "pruned") for row in arm.search())
    assert found["lr"].verdict == "matters"
    assert found["lr"].epoch == 4  # where the pruned ones stopped


def test_arm_without_finished_trials() -> None:
    for until in ("planned", "searching"):
        record = make_record(until=until, trials=6)
        assert {one.verdict for one in arm_importance(record.arms["ralr"], ACCURACY).values()} == {
            "too little evidence"
        }


def test_one_valued_dimension_of_an_arm() -> None:
    def fix(row: Row) -> Row:
        return replace(row, params={**row.params, "weight_decay": 1e-4})

    found = arm_importance(make_record(until="searched", change=fix).arms["monotone"], ACCURACY)
    assert (found["weight_decay"].value, found["weight_decay"].verdict) == (0.0, "too little evidence")


def foreign_study(*, prune: bool, trials: int = 50) -> optuna.Study:
    """A user's own study: steps from 0, a choice without effect, some values that are not finite."""
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


def searched(
    objective: Callable[[optuna.Trial, float], float | None], *, trials: int = 60, **study: Any
) -> optuna.Study:
    """A study of random trials; the objective takes the trial and a draw of noise, None stands for FAIL."""
    random = np.random.default_rng(7)
    made = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7), **study)
    for _ in range(trials):
        trial = made.ask()
        made.tell(trial, objective(trial, float(random.normal())), skip_if_finished=True)
    return made


def test_conditional_parameters_are_tested_among_trials_that_have_them() -> None:
    def objective(trial: optuna.Trial, noise: float) -> float:
        if trial.suggest_categorical("optimizer", ["adam", "sgd"]) == "adam":
            return trial.suggest_float("beta", 0, 1) * 0 + 5 + noise
        return 8 * trial.suggest_float("momentum", 0, 1) + 10 + noise

    found = importance(searched(objective))
    assert {name: one.verdict for name, one in found.items()} == {
        "optimizer": "matters", "momentum": "matters", "beta": "indistinguishable"
    }  # fmt: skip
    assert found["momentum"].trials + found["beta"].trials == found["optimizer"].trials == 60


def test_too_few_trials_have_a_conditional_parameter() -> None:
    def objective(trial: optuna.Trial, noise: float) -> float:
        seldom = trial.suggest_float("seldom", 0, 1) if trial.number % 7 == 0 else 0.0
        return 100 * seldom + trial.suggest_float("x", 0, 1)

    one = importance(searched(objective))["seldom"]
    assert (one.verdict, one.trials) == ("too little evidence", 9)


def test_whole_numbers_logarithms_choices_and_one_value() -> None:
    def objective(trial: optuna.Trial, noise: float) -> float:
        layers = trial.suggest_int("layers", 1, 4)
        width = trial.suggest_int("width", 8, 1024, log=True)
        trial.suggest_categorical("activation", [None, True, "relu", 1.5])
        trial.suggest_float("fixed", 0.9, 0.9)
        return layers + math.log2(width) + 0.5 * noise

    for direction in ("minimize", "maximize"):
        found = importance(searched(objective, direction=direction))
        assert {name: one.verdict for name, one in found.items()} == {
            "layers": "matters", "width": "matters", "activation": "indistinguishable", "fixed": "too little evidence"
        }  # fmt: skip


def test_one_parameter_alone() -> None:
    assert importance(searched(lambda trial, noise: trial.suggest_float("x", 0, 1) + 0.1 * noise))["x"].value > 0.7
    ignoring = searched(lambda trial, noise: 0 * trial.suggest_float("x", 0, 1) + noise)
    assert importance(ignoring)["x"].verdict == "indistinguishable"


def test_non_finite_values_are_left_out() -> None:
    ends = [math.nan, math.inf, -math.inf]

    def objective(trial: optuna.Trial, noise: float) -> float:
        x = trial.suggest_float("x", 0, 1)
        return ends[trial.number % 12] if trial.number % 12 < 3 else x + 0.1 * noise

    found = importance(searched(objective))
    assert (found["x"].trials, found["x"].verdict) == (45, "matters")


def pruned(trial: optuna.Trial, reports: Sequence[float]) -> None:
    for step, value in enumerate(reports):
        trial.report(value, step)
    raise optuna.TrialPruned


def optimized(objective: Callable[[optuna.Trial], float], trials: int = 40) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    study.optimize(objective, n_trials=trials)
    return study


Domain = tuple[optuna.distributions.BaseDistribution, Callable[[np.random.Generator], Any]]
NUMBER: Domain = (optuna.distributions.FloatDistribution(0, 1), lambda rng: float(rng.random()))
LOG: Domain = (optuna.distributions.FloatDistribution(1e-3, 1, log=True), lambda rng: float(10 ** rng.uniform(-3, 0)))
SIGNED: Domain = (optuna.distributions.FloatDistribution(-1, 1), lambda rng: float(rng.uniform(-1, 1)))
WHOLE: Domain = (optuna.distributions.IntDistribution(1, 9), lambda rng: int(rng.integers(1, 10)))
CHOICE: Domain = (optuna.distributions.CategoricalDistribution(["a", "b"]), lambda rng: "ab"[rng.integers(2)])
MIXED: Domain = (
    optuna.distributions.CategoricalDistribution([None, True, 3]),
    lambda rng: (None, True, 3)[rng.integers(3)],
)


def of_two_kinds(first: Domain, second: Domain, counts: tuple[int, int]) -> optuna.Study:
    """A study in which `p` changed its domain after `counts[0]` trials, and has no effect."""
    rng, study = np.random.default_rng(0), optuna.create_study()
    for domain, draw in (domain for domain, count in zip((first, second), counts, strict=True) for _ in range(count)):
        x = float(rng.random())
        distributions = {"p": domain, "x": optuna.distributions.FloatDistribution(0, 1)}
        params = {"p": draw(rng), "x": x}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=x))
    return study


@pytest.mark.parametrize(
    ("first", "second", "trials"),
    [
        (CHOICE, NUMBER, 30),
        (NUMBER, CHOICE, 30),
        (MIXED, WHOLE, 30),
        (NUMBER, WHOLE, 50),
        (LOG, SIGNED, 50),
        (SIGNED, LOG, 50),
        (LOG, NUMBER, 50),
    ],
)
def test_a_name_that_changed_its_kind_is_judged_among_the_more_frequent(
    first: Domain, second: Domain, trials: int
) -> None:
    found = importance(of_two_kinds(first, second, (30, 20)))
    assert (found["p"].trials, found["p"].verdict, found["x"].verdict) == (trials, "indistinguishable", "matters")


def test_optunas_own_evaluators_take_such_a_name_among_the_more_frequent() -> None:
    for study in (of_two_kinds(CHOICE, NUMBER, (8, 4)), of_two_kinds(CHOICE, WHOLE, (4, 8))):
        before = [trial.params for trial in study.trials]
        found = optuna_importances(study, draws=1)
        assert all(values["x"].value > 0.5 for values in found.values())
        assert [trial.params for trial in study.trials] == before


def test_of_kinds_that_are_equally_frequent_the_newest_is_judged() -> None:
    assert importance(of_two_kinds(NUMBER, CHOICE, (12, 12)))["p"].trials == 12
    assert importance(of_two_kinds(CHOICE, NUMBER, (12, 12)))["p"].null != (0.0, 1.0)


def test_all_pruned() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        return pruned(trial, [x] * (1 + trial.number % 3)) or x

    found = importance(optimized(objective))
    assert (found["x"].verdict, found["x"].trials, found["x"].epoch) == ("matters", 40, 0)


def test_pruned_trials_whose_last_report_is_not_finite_are_left_out() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        return pruned(trial, [x, math.nan] if trial.number % 2 else [math.nan, x]) or x

    assert importance(optimized(objective))["x"].trials == 20
    assert importance(optimized(lambda trial: pruned(trial, []) or trial.suggest_float("x", 0, 1))) == {}


def test_all_diverged_and_three_trials_are_too_little_evidence() -> None:
    diverged = searched(lambda trial, noise: math.inf * (1 + trial.suggest_float("x", 0, 1)))
    few = searched(lambda trial, noise: trial.suggest_float("x", 0, 1), trials=3)
    for study, trials in ((diverged, 0), (few, 3)):
        assert (importance(study)["x"].verdict, importance(study)["x"].trials) == ("too little evidence", trials)


def test_trials_that_this_package_marked_as_diverged_are_left_out() -> None:
    def objective(trial: optuna.Trial, noise: float) -> float:
        if trial.suggest_float("x", 0, 1) > 0.5:
            trial.set_user_attr("ralr_tune:diverged", "diverged")
            return 0.0
        return trial.params["x"]

    study = searched(objective)
    assert importance(study)["x"].trials == sum(trial.params["x"] <= 0.5 for trial in study.trials)


def test_studies_without_trials_or_with_several_objectives_and_other_objects() -> None:
    assert importance(optuna.create_study()) == {}
    with pytest.raises(UsageError, match=r"^study.directions = \['minimize', 'maximize'\]: .* one objective$"):
        importance(optuna.create_study(directions=["minimize", "maximize"]))
    with pytest.raises(UsageError, match=r"^study = 3: must be an optuna.Study$"):
        importance(3)  # type: ignore[arg-type]


def test_the_public_name_is_the_function() -> None:
    from ralr_tune import analysis

    assert analysis.importance is importance
    assert analysis.importance(searched(lambda trial, noise: trial.suggest_float("x", 0, 1)))["x"].verdict == "matters"


def test_large_studies_are_thinned_and_the_evaluator_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[importance.__module__], "MAX_TRIALS", 50)
    found = importance(searched(lambda trial, noise: trial.suggest_float("x", 0, 1) + noise, trials=200))
    assert found["x"].trials == 50
    assert found["x"].evaluator.endswith("; 50 of 200 trials, evenly spaced")
    assert thinned(list(range(5)), 3) == [0, 2, 4]


def observed(*curves: Sequence[float], length: int = 3) -> list[Observed]:
    """One trial per curve; those shorter than `length` were pruned."""
    return [Observed({}, dict(enumerate(curve, 1)), curve[-1] if len(curve) == length else None) for curve in curves]


def test_unpruned_trials_are_ranked_by_their_final_scores() -> None:
    assert list(ranks(observed([0, 0, 3], [5, 5, 1], [1, 1, 2]))) == [2, 0, 1]
    assert list(ranks(observed([0, 0, 3], [5, 5, 1], [1, 1, 3]))) == [1.5, 0, 1.5]
    assert list(ranks([])) == []


def test_pruned_trials_keep_the_ranks_at_which_they_stopped() -> None:
    assert list(ranks(observed([4], [1], [2, 9], [3, 8, 7], [5, 7, 8]))) == [3, 0, 4, 1, 2]


def test_a_tie_among_pruned_trials_is_no_tie_among_longer_ones() -> None:
    assert list(ranks(observed([1], [1], [1, 0, 2], [1, 0, 1]))) == [0.5, 0.5, 3, 2]


def test_no_rank_depends_on_an_epoch_that_the_trial_did_not_reach() -> None:
    curves = [[0.3], [0.1, 0.2], [0.2, 0.1, 0.5], [0.4, 0.3, 0.6]]
    late = [[*curve[:2], *(9 - value for value in curve[2:])] for curve in curves]
    assert list(ranks(observed(*curves)))[:2] == list(ranks(observed(*late)))[:2]


def test_pruning_does_not_hide_a_parameter_that_acts_late() -> None:
    """At the epoch that all reached, only the rate distinguishes the trials."""

    def objective(trial: optuna.Trial, noise: float) -> float | None:
        x, late = trial.suggest_float("x", 0, 1), trial.suggest_float("late", 0, 1)
        trial.report(x + 0.01 * noise, 0)
        if x < 0.5:
            return trial.study.tell(trial, state=optuna.trial.TrialState.PRUNED) and None
        trial.report(x + late, 1)
        return x + late

    found = importance(searched(objective))
    assert (found["late"].verdict, found["late"].epoch) == ("matters", 0)
