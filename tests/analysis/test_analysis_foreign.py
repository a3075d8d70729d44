from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import optuna
import pytest

from ralr_tune import analysis

optuna.logging.set_verbosity(optuna.logging.ERROR)


def searched(shift: float, seed: int, *, trials: int = 12, tpe: bool = False, name: str | None = None) -> optuna.Study:
    sampler = optuna.samplers.TPESampler(seed=seed) if tpe else optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, study_name=name)
    study.optimize(lambda trial: shift - trial.suggest_float("x", -1, 1) ** 2, n_trials=trials)
    return study


def replicates(shift: float, first: int, count: int = 4) -> Sequence[optuna.Study]:
    return [searched(shift, first + seed) for seed in range(count)]


def test_replicates_get_a_verdict() -> None:
    found = analysis.compare(replicates(0.3, 0), replicates(0.0, 10))
    assert found.verdict is not None
    assert (found.verdict.verdict, found.verdict.n, found.trials) == ("better", 4, 12)
    assert found.lead.leader == "study"
    assert "study against baseline: better" in str(found)


def test_one_search_each_gets_no_verdict() -> None:
    found = analysis.compare(searched(0.3, 0, name="ralr"), searched(0.0, 1, name="monotone"))
    assert found.verdict is None
    assert (found.study.arm, found.baseline.arm, found.study.kind) == ("ralr", "monotone", "expected")
    assert "n = 1" in str(found)


def test_equal_searches_are_equivalent_within_a_margin() -> None:
    found = analysis.compare(replicates(0.0, 0), replicates(0.0, 10), margin=0.5)
    assert found.verdict is not None
    assert found.verdict.verdict == "equivalent"


def test_paired_replicates_are_compared_pair_by_pair() -> None:
    own = [searched(0.01 + 0.001 * seed, seed) for seed in range(4)]
    other = [searched(0.0, seed) for seed in range(4)]
    paired, free = (analysis.compare(own, other, paired=each) for each in (True, False))
    assert paired.verdict is not None
    assert free.verdict is not None
    assert paired.verdict.verdict == "better"
    assert paired.verdict.difference == pytest.approx(free.verdict.difference)


def test_an_adaptive_sampler_is_not_random_search() -> None:
    found = analysis.compare(searched(0.3, 0, tpe=True), searched(0.0, 1, tpe=True))
    assert (found.study.kind, found.study.band) == ("realised", "")


def test_the_verdict_uses_as_many_trials_as_every_search_has() -> None:
    assert analysis.compare([searched(0.0, 0, trials=5), searched(0.0, 1)], replicates(0.0, 10)).trials == 5


def test_failed_and_pruned_trials_cost_budget() -> None:
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    trial = study.ask()
    trial.report(-5.0, 1)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    study.tell(study.ask(), 2.0)
    found = analysis.compare(study, study)
    assert found.study.best == (None, None, 2.0)


def constrained(*trials: tuple[float, float], direction: str = "maximize", name: str | None = None) -> optuna.Study:
    """A study of (value, violation) trials; a violation above 0 is infeasible."""
    study = optuna.create_study(direction=direction, study_name=name, sampler=optuna.samplers.TPESampler(seed=0))
    for value, violation in trials:
        trial = study.ask()
        trial.set_constraint("memory", violation)
        study.tell(trial, value)
    return study


def test_an_infeasible_trial_counts_towards_the_budget_and_is_never_the_best() -> None:
    found = analysis.compare(constrained((0.9, 1.0), (0.1, 0.0)), constrained((0.5, -1.0), (0.2, 0.5)))
    assert (found.study.best, found.baseline.best) == ((None, 0.1), (0.5, 0.5))
    assert found.lead.leader == "baseline"
    lower = analysis.compare(
        constrained((0.1, 1.0), (0.9, 0.0), direction="minimize"), constrained((0.5, 0.0), direction="minimize")
    )
    assert lower.study.best == (None, 0.9)


def test_infeasible_trials_decide_no_verdict() -> None:
    own = [constrained((0.9 + 0.01 * seed, 1.0), (0.1 + 0.01 * seed, 0.0)) for seed in range(4)]
    other = [constrained((0.5 + 0.01 * seed, 0.0), (0.2, 0.0)) for seed in range(4)]
    found = analysis.compare(own, other)
    assert found.verdict is not None
    assert found.verdict.verdict == "worse"


def test_random_search_counts_an_infeasible_trial_as_a_failed_one() -> None:
    study, failed = searched(0.0, 0), searched(0.0, 0)
    for each, violation in ((study, 1.0), (failed, 0.0)):
        trial = each.ask({"x": optuna.distributions.FloatDistribution(-1, 1)})
        trial.set_constraint("c", violation)
        each.tell(trial, 9.0 if violation else None, state=None if violation else optuna.trial.TrialState.FAIL)
    one, two = (analysis.compare(each, searched(0.0, 1)) for each in (study, failed))
    assert one.study.best == two.study.best


def test_constraints_of_a_sampler_count_as_well() -> None:
    sampler = optuna.samplers.TPESampler(seed=0, constraints_func=lambda trial: (trial.params["x"],))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=12)
    assert (analysis.compare(study, searched(0.0, 1)).study.best[-1] or 0) <= 0


def test_replicates_without_a_value_to_compare_get_no_verdict() -> None:
    late = [constrained((0.9, 1.0), (0.1, 0.0)) for _ in range(2)]
    found = analysis.compare(late, [constrained((0.5, 0.0)) for _ in range(2)])
    assert found.verdict is None
    assert str(found).startswith("No verdict after 1 trials: not every replicate")


def test_any_iterable_of_studies_is_a_list_of_replicates() -> None:
    own, other = replicates(0.3, 0), replicates(0.0, 10)
    listed = analysis.compare(own, other)
    assert analysis.compare((each for each in own), tuple(other)) == listed
    assert analysis.compare(iter(own), dict.fromkeys(other)) == listed


def loaded_twice() -> list[optuna.Study]:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="one", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    return [study, optuna.load_study(study_name="one", storage=storage)]


def copied() -> list[optuna.Study]:
    """A copy, and the original some trials later."""
    one, two = loaded_twice()[0], optuna.storages.InMemoryStorage()
    optuna.copy_study(from_study_name="one", from_storage=one._storage, to_storage=two, to_study_name="other")
    one.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    return [one, optuna.load_study(study_name="other", storage=two)]


@pytest.mark.parametrize(("made", "message"), [(loaded_twice, "one is given twice"), (copied, "hold the same trials")])
def test_one_search_cannot_be_two_replicates(made: Callable[[], list[optuna.Study]], message: str) -> None:
    twice, others = made(), list(replicates(0.0, 10, 2))
    for own, other in ((twice, others), (others, twice), (twice[:1] + others[:1], others[1:] + twice[1:])):
        with pytest.raises(ValueError, match=message):
            analysis.compare(own, other)


def test_replicates_that_share_their_first_trials_are_two() -> None:
    own = [searched(0.3, seed, trials=2) for seed in range(2)]
    for study in own:
        study.add_trials(replicates(0.0, 9, 1)[0].trials[:1])
    assert analysis.compare(own, replicates(0.0, 10, 2)).verdict is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *[({"confidence": value}, "confidence = ") for value in (95, 1.0, 0, 0.05, -1, math.nan, "0.95", True, None)],
        *[({"margin": value}, "margin = ") for value in (-0.1, math.nan, math.inf, "0", None, True)],
        *[({"paired": value}, "paired = ") for value in ("yes", 1, None)],
        *[({"study": value}, "study = ") for value in (None, "study", 5)],
        *[({"baseline": value}, "baseline = ") for value in (None, b"study", 1.5)],
        ({"study": ["study"]}, r"study\[0\] = 'study'"),
        ({"baseline": iter([])}, "baseline: an empty list"),
    ],
)
def test_arguments_are_checked_at_once(arguments: dict[str, Any], message: str) -> None:
    study = optuna.create_study()  # without a trial: nothing of it is read before the arguments are right
    with pytest.raises(ValueError, match=f"^{message}.*allowed: "):
        analysis.compare(**{"study": study, "baseline": study} | arguments)


def test_several_objectives_are_refused_before_a_trial_is_read() -> None:
    study = optuna.create_study(directions=["minimize"] * 2)
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 0.0), n_trials=1)
    with pytest.raises(ValueError, match="2 objectives, allowed: 1"):
        analysis.compare(study, searched(0.0, 0))


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        (lambda: [], lambda: searched(0.0, 0), "study: an empty list"),
        (optuna.create_study, lambda: searched(0.0, 0), "maximize and minimize"),
        (lambda: optuna.create_study(direction="maximize"), lambda: searched(0.0, 0), "without a complete trial"),
        (lambda: constrained((0.5, 0.1)), lambda: searched(0.0, 0), "without a complete trial that meets its"),
        (lambda: optuna.create_study(directions=["minimize"] * 2), lambda: searched(0.0, 0), "2 objectives"),
        (lambda: replicates(0.0, 0, 2), lambda: replicates(0.0, 5, 3), "2 and 3 replicates"),
    ],
)
def test_searches_that_cannot_be_compared_are_refused(own, other, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        analysis.compare(own(), other(), paired=True)


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        analysis.nothing  # noqa: B018


def test_naming_it_imports_no_optuna() -> None:
    code = "import sys; from ralr_tune.analysis import compare; print('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
