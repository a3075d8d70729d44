from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

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


def test_the_verdict_uses_the_trials_that_all_have() -> None:
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


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        (lambda: [], lambda: searched(0.0, 0), "study: an empty list"),
        (optuna.create_study, lambda: searched(0.0, 0), "maximize and minimize"),
        (lambda: optuna.create_study(direction="maximize"), lambda: searched(0.0, 0), "without a complete trial"),
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
