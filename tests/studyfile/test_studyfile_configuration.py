"""One point of an arm's space: its learning rate, its twin, its identity."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ralr_tune.schedules.amplification import Amplification
from ralr_tune.schedules.curves import make_curve
from ralr_tune.schedules.noise import Noise
from ralr_tune.schedules.rate import LearningRate
from ralr_tune.studyfile import Configuration

TRAINING = {"epochs": 8, "batch_size": 32, "lr": 0.2}
AMPLIFY = {
    "probability": 0.5,
    "lower": 1.5,
    "width": 2.0,
    "law": "loguniform",
    "granularity": "step",
    "window": (0.25, 1.0),
}
SCHEDULE = {"name": "multistep", "warmup": 2, "warmup_factor": 0.5, "options": {"milestones": (4, 0.75), "gamma": 0.1}}


def configuration(**tables: Any) -> Configuration:
    return Configuration.model_validate({"training": TRAINING, "schedule": SCHEDULE} | tables)


def test_every_key_reaches_the_learning_rate() -> None:
    curve = make_curve("multistep", epochs=8, warmup=2.0, warmup_factor=0.5, milestones=(4, 0.75), gamma=0.1)
    law = Amplification(probability=0.5, lower=1.5, upper=3.5, law="loguniform", granularity="step", window=(0.25, 1.0))
    expected = LearningRate(0.2, curve, 8, 5, law, seed=7, granularity="step")
    schedule = SCHEDULE | {"granularity": "step"}
    assert configuration(schedule=schedule, amplify=AMPLIFY).learning_rate(5, seed=7) == expected


def test_noise_reaches_the_learning_rate() -> None:
    noise = {"amplitude": 0.3, "std": 0.5, "law": "normal", "granularity": "step", "window": (0.0, 0.5)}
    expected = Noise(amplitude=0.3, std=0.5, law="normal", granularity="step", window=(0.0, 0.5))
    assert configuration(noise=noise).perturbation() == expected


def test_without_perturbation_the_rate_is_the_curve() -> None:
    rate = configuration(schedule={"name": "linear", "options": {}}).learning_rate(2, seed=0)
    assert rate.perturbation is None
    np.testing.assert_allclose(rate.trace()[:, 0], 0.2 * np.linspace(1, 0, 8, endpoint=False))


def test_the_twin_differs_only_in_the_amplification() -> None:
    amplified = configuration(amplify=AMPLIFY)
    twin = amplified.without_amplification()
    assert twin == configuration()
    assert twin.model_dump() | {"amplify": amplified.model_dump()["amplify"]} == amplified.model_dump()
    trace, plain = (each.learning_rate(5, seed=3).trace() for each in (amplified, twin))
    assert (trace[:2] == plain[:2]).all()  # before the window
    assert 0 < (trace != plain).mean() < 1
    assert (trace >= plain).all()


def test_the_twin_keeps_noise() -> None:
    noisy = configuration(noise={})
    assert noisy.without_amplification() == noisy


def test_impossible_curves_are_value_errors() -> None:
    with pytest.raises(ValueError, match="warmup = 8"):
        configuration(schedule=SCHEDULE | {"warmup": 8}).curve()


@pytest.mark.parametrize(
    "tables",
    [
        {"training": TRAINING | {"lr": "0.1"}},
        {"training": TRAINING | {"epochs": 8.0}},
        {"training": TRAINING | {"lr": 0.0}},
        {"training": TRAINING | {"optimizer": "lbfgs"}},
        {"amplify": AMPLIFY | {"width": -1.0}},
        {"amplify": AMPLIFY | {"window": (0.5, 0.25)}},
        {"ampliy": AMPLIFY},
    ],
)
def test_impossible_configurations(tables: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        configuration(**tables)


def test_a_configuration_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        configuration().amplify = None  # type: ignore[misc]


def test_a_configuration_survives_json() -> None:
    amplified = configuration(amplify=AMPLIFY)
    back = Configuration.model_validate_json(amplified.model_dump_json())
    assert back.identity(0) == amplified.identity(0)
    assert back.learning_rate(3, seed=1).trace().tolist() == amplified.learning_rate(3, seed=1).trace().tolist()
    assert json.loads(amplified.model_dump_json())["amplify"]["window"] == [0.25, 1.0]


def test_identity_distinguishes_what_trains_differently() -> None:
    identities = [
        configuration().identity(0),
        configuration().identity(1),
        configuration(amplify=AMPLIFY).identity(0),
        configuration(amplify=AMPLIFY | {"lower": 1.25}).identity(0),
        configuration(training=TRAINING | {"lr": 0.1}).identity(0),
        configuration(training=TRAINING | {"options": {"momentum": 0.9}}).identity(0),
        configuration(schedule={"name": "constant"}).identity(0),
    ]
    assert len(set(identities)) == len(identities)
    assert configuration(amplify=AMPLIFY).without_amplification().identity(0) == identities[0]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("lr", 0.2),
        ("epochs", 8),
        ("weight_decay", 0.0),
        ("clip_norm", None),  # not given
        ("momentum", 0.9),
        ("nesterov", None),  # no number
        ("optimizer", None),
        ("options", None),
        ("schedule.warmup", 2),
        ("schedule.gamma", 0.1),
        ("schedule.milestones", None),
        ("schedule.power", None),
        ("amplify.width", 2.0),
        ("amplify.window", None),
        ("noise.std", None),
    ],
)
def test_numbers_are_found_by_optuna_name(name: str, number: float | None) -> None:
    training = TRAINING | {"options": {"momentum": 0.9, "nesterov": True}}
    assert configuration(training=training, amplify=AMPLIFY).number(name) == number


# ---------------------------------------------------------------- the window of amplification

OPEN = {"probability": 1.0, "lower": 2.0, "width": 0.0}


@pytest.mark.parametrize(
    ("warmup", "window"), [(0.0, (0.0, 1.0)), (0.25, (0.25, 1.0)), (2.0, (0.25, 1.0)), (1.0, (0.125, 1.0))]
)
def test_by_default_amplification_begins_after_the_warm_up(warmup: float, window: tuple[float, float]) -> None:
    schedule = {"name": "constant", "warmup": warmup}
    default, given = (configuration(schedule=schedule, amplify=OPEN | more) for more in ({}, {"window": window}))
    assert default.window == window
    assert default.learning_rate(5, seed=3) == given.learning_rate(5, seed=3)
    assert default.identity(1) == given.identity(1)
    factors = default.learning_rate(1, seed=0).factor_trace()[:, 0]
    assert factors.tolist() == [1.0 if epoch < window[0] * 8 else 2.0 for epoch in range(8)]


def test_an_added_amplification_follows_the_warm_up_of_its_receiver() -> None:
    donor = configuration(schedule={"name": "constant", "warmup": 4.0}, amplify=OPEN)
    receiver = configuration(schedule={"name": "constant", "warmup": 2.0})
    assert donor.amplify is not None
    assert receiver.with_amplification(donor.amplify).window == (0.25, 1.0)


def test_without_a_warm_up_the_json_is_that_of_earlier_releases() -> None:
    schedule = {"name": "constant"}
    assert json.loads(configuration(schedule=schedule, amplify=OPEN).model_dump_json())["amplify"]["window"] == [0, 1]
