"""Samplers after a range was widened; if none was, they behave as Optuna's own."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.study import Study
from optuna.trial import TrialState

from ralr_tune.search.widened import WideGP, WideTPE

NARROW, WIDE = FloatDistribution(1e-3, 1.0, log=True), FloatDistribution(1e-3, 100.0, log=True)
OTHER = {"momentum": FloatDistribution(0.0, 1.0), "law": CategoricalDistribution(["uniform"])}
MakeSampler = Callable[..., BaseSampler]


def search(make: MakeSampler, lr: BaseDistribution, trials: int, study: Study | None = None) -> Study:
    """Trials with a score that is best at lr = 31 and momentum = 0.3, each with its own sampler, as in workers."""
    study = study or optuna.create_study(direction="maximize")
    for _ in range(trials):
        study.sampler = make(seed=len(study.trials))
        trial = study.ask({"lr": lr} | OTHER)
        score = -((math.log10(trial.params["lr"]) - 1.5) ** 2) - (trial.params["momentum"] - 0.3) ** 2
        if trial.number % 5 == 4:
            trial.report(score, 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, score)
    return study


@pytest.mark.parametrize(("ours", "theirs"), [(WideTPE, TPESampler), (WideGP, GPSampler)])
def test_without_a_change_samplers_propose_what_optuna_proposes(
    ours: Callable[..., BaseSampler], theirs: MakeSampler
) -> None:
    def make(seed: int) -> BaseSampler:
        return ours({"lr": NARROW} | OTHER, seed=seed, n_startup_trials=4)

    def plain(seed: int) -> BaseSampler:
        return theirs(seed=seed, n_startup_trials=4)

    assert [trial.params for trial in search(make, NARROW, 14).trials] == [
        trial.params for trial in search(plain, NARROW, 14).trials
    ]


@pytest.mark.parametrize("kind", [WideTPE, WideGP])
def test_all_of_the_wider_range_is_modelled_from_the_next_trial_on(
    kind: Callable[..., BaseSampler], caplog: pytest.LogCaptureFixture
) -> None:
    study = search(partial(kind, {"lr": NARROW} | OTHER, n_startup_trials=4), NARROW, 14)
    optuna.logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        search(partial(kind, {"lr": WIDE} | OTHER, n_startup_trials=4), WIDE, 12, study)
    optuna.logging.disable_propagation()
    assert "sampled independently" not in caplog.text
    proposed = [trial.params["lr"] for trial in study.trials[14:]]
    assert sum(lr > 1.0 for lr in proposed) >= 9
    assert sum(10 < lr < 100 for lr in proposed) >= 5


def test_the_check_above_can_fail() -> None:
    """Optuna's own GP draws a widened parameter at random: given its range, two values in five are above 1 here."""
    study = search(partial(GPSampler, n_startup_trials=4), NARROW, 14)
    search(partial(GPSampler, n_startup_trials=4), WIDE, 12, study)
    assert sum(trial.params["lr"] > 1.0 for trial in study.trials[14:]) < 9
