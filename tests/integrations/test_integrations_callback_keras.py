"""Keras, on torch, trains a trial through the callback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.own.trial import Trial
from tests.integrations.frameworks import data, framework
from tests.integrations.trials import (
    Worker,
    check_resume,
    check_stop,
    check_test_stage,
    checked_reports,
    run,
)

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = framework("keras")
callbacks = framework("ralr_tune.integrations.keras")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STEPS = 4


class Rates(keras.callbacks.Callback):  # type: ignore[misc,name-defined]
    """The rate of the last step of each epoch."""

    def __init__(self, rates: list[float]) -> None:
        super().__init__()
        self.rates = rates

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.rates.append(float(f"{float(self.model.optimizer.learning_rate):.6g}"))


def train(trial: Trial, monitor: str = "val_negative", steps: int = 0, **options: Any) -> Any:
    rates: list[float] = []
    layers = [
        keras.layers.Dense(8),
        keras.layers.Dropout(0.5),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential(layers)

    def negative(targets: Any, found: Any) -> Any:
        return -keras.losses.mean_squared_error(targets, found)

    model.compile(keras.optimizers.SGD(trial.params["lr"], momentum=0.9), "mse", metrics=[negative])
    inputs, targets = (each.numpy() for each in data().tensors)
    callback = callbacks.RalrTuneCallback(trial, monitor, metrics=["val_loss"], steps_per_epoch=steps)
    given = {
        "batch_size": 8, "verbose": 0, "callbacks": [Rates(rates), callback], "epochs": trial.max_epochs,
        "initial_epoch": trial.first_epoch - 1, "validation_data": (inputs, targets),
    } | options  # fmt: skip
    model.fit(inputs, targets, **given)
    if trial.stage == "test":
        trial.report_test(model.evaluate(inputs, targets, verbose=0, return_dict=True)["negative"])
    return rates, [each.tolist() for each in model.get_weights()]


@pytest.mark.parametrize("steps", [0, STEPS])
def test_every_epoch_is_reported(tmp_path: Path, steps: int) -> None:
    for report in checked_reports(lambda trial: train(trial, steps=steps), tmp_path):
        assert report["metrics"] == {"val_loss": pytest.approx(-report["value"])}
        assert report["loss"] > 0


def test_stop_is_obeyed(tmp_path: Path) -> None:
    check_stop(train, tmp_path)


def test_resume_is_exact(tmp_path: Path) -> None:
    check_resume(train, tmp_path)


def test_the_test_stage(tmp_path: Path) -> None:
    check_test_stage(train, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monitor": "val_accuracy"}, "val_accuracy: not logged in this epoch; logged: .*val_negative"),
        ({"initial_epoch": 2}, "pass initial_epoch"),
        ({"epochs": 5}, "pass initial_epoch"),
    ],
)
def test_a_fit_that_does_not_fit(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(lambda trial: train(trial, **options), Worker(tmp_path))
