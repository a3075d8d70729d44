"""The search dimensions in the user's own Optuna objective."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest

from ralr_tune.schedules.amplification import Amplification
from ralr_tune.schedules.suggest import suggest_amplification


def test_every_suggestion_is_a_valid_amplification() -> None:
    def objective(trial: optuna.Trial) -> float:
        return Amplification(**suggest_amplification(trial)).factor(trial.number, 0)  # type: ignore[arg-type]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=50)
    assert set(study.best_params) == {"amplify.probability", "amplify.lower", "amplify.width"}


def test_upper_is_lower_plus_width() -> None:
    trial = optuna.trial.FixedTrial({"amplify.probability": 0.3, "amplify.lower": 1.5, "amplify.width": 2.0})
    assert suggest_amplification(trial) == {"probability": 0.3, "lower": 1.5, "upper": 3.5}


def test_a_number_fixes_a_dimension_and_suggests_nothing() -> None:
    trial = optuna.trial.FixedTrial({"amplify.width": 2.0})
    assert suggest_amplification(trial, probability=0.2, lower=1) == {"probability": 0.2, "lower": 1.0, "upper": 3.0}


def test_a_prefix_keeps_two_amplifications_of_one_trial_apart() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    found = [suggest_amplification(trial, prefix=prefix) for prefix in ("generator.", "discriminator.")]
    assert found[0] != found[1]
    assert len(trial.params) == 6
    assert trial.params["generator.amplify.probability"] == found[0]["probability"]


def test_numpy_scalars_are_ranges_too() -> None:
    trial = optuna.create_study().ask()
    low, high = np.float32(0.1), np.float32(0.2)
    found = suggest_amplification(trial, probability=(low, high), lower=np.float64(1.5), width=np.int64(2))
    assert 0.1 <= found["probability"] <= 0.21
    assert [type(value) for value in found.values()] == [float] * 3
    assert found["upper"] == 3.5


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        ({"probability": (0.5, 1.2)}, r"probability = 1.2; allowed: a number in \[0.5, 1\]"),
        ({"probability": 2}, r"probability = 2; allowed: a number in \[0, 1\]"),
        ({"lower": (0.5, 2.0)}, r"lower = 0.5; allowed: a number in \[1, inf\)"),
        ({"width": (3.0, 1.0)}, r"width = 1.0; allowed: a number in \[3.0, inf\)"),
        ({"width": (1.0, 2.0, 3.0)}, "width = .*allowed: a number or a pair"),
        ({"width": "wide"}, "width = 'wide'"),
        ({"prefix": 1}, "prefix = 1; allowed: a string"),
    ],
)
def test_invalid_dimensions_are_refused(dimension: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        suggest_amplification(optuna.trial.FixedTrial({}), **dimension)
