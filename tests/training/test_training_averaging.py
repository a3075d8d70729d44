"""The moving average of the weights: its numbers, what is judged and kept, and what goes on without it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ralr_tune.records import epoch_series
from ralr_tune.tasks.trial import Trial
from ralr_tune.training import loop
from ralr_tune.training.averaging import WeightAverage
from ralr_tune.training.fusion import FusedTrainer
from ralr_tune.training.loop import TorchTrial
from ralr_tune.training.start import start
from ralr_tune.training.weights import load_weights
from tests.training.trials import differences, run, timeless, weights

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    loop.log_once.cache_clear()


def started(task: Any, configuration: Any, **given: Any) -> TorchTrial:
    trial = start(task, configuration, seed=1, **given)
    assert isinstance(trial, TorchTrial)
    return trial


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.9])
def test_the_average_follows_its_formula(decay: float) -> None:
    model = nn.BatchNorm1d(1)
    average, expected = WeightAverage(model, decay), {"weight": 1.0, "running_mean": 0.0}
    for step in range(12):
        with torch.no_grad():
            model.weight.fill_(float(step))
            model.running_mean.fill_(2.0 * step)  # type: ignore[union-attr]
            model.num_batches_tracked.fill_(step)  # type: ignore[union-attr]
        average.update(model)
        kept = min(decay, (1 + step) / (10 + step))
        expected["weight"] = kept * expected["weight"] + (1 - kept) * step
        expected["running_mean"] = kept * expected["running_mean"] + (1 - kept) * 2 * step
        found = average.network.state_dict()
        assert {name: found[name].item() for name in expected} == pytest.approx(expected, rel=1e-5)
        assert found["num_batches_tracked"].item() == step
    assert average.updates == 12


def test_the_average_does_not_change_the_training(make_images: Make, configure: Make) -> None:
    task = make_images(dropout=0.3)
    plain, averaged = run(started(task, configure())), run(started(task, configure(ema_decay=0.9)))
    assert [record.train_loss for record in averaged.curve] == [record.train_loss for record in plain.curve]
    assert differences(plain, averaged)[0] == "curve"  # the values are the average's
    assert "weights" not in differences(plain, averaged)


def test_the_value_is_the_average_s_and_that_of_the_weights_is_another_metric(
    make_images: Make, configure: Make
) -> None:
    task = make_images()
    plain, averaged = started(task, configure()), started(task, configure(ema_decay=0.9))
    run(plain), run(averaged)
    assert not epoch_series(plain.curve)
    (series,) = epoch_series(averaged.curve)
    assert (series.name, series.axis) == ("accuracy_without_ema", "epoch")
    assert series.points == tuple((record.epoch, record.value) for record in plain.curve)
    assert averaged.curve[-1].value == averaged.evaluate("validation")
    assert averaged.state.average is not None
    assert averaged.evaluate("test") == task.evaluate(averaged.state.average.network, "test")


def test_the_average_is_kept_as_the_trial_s_weights(make_images: Make, configure: Make, tmp_path: Path) -> None:
    task, configuration = make_images(), configure(ema_decay=0.9, epochs=2)
    trial = started(task, configuration)
    run(trial)
    trial.save_weights(tmp_path / "weights")
    model = task.build_model(5)
    load_weights(model, tmp_path / "weights")
    assert task.evaluate(model, "test") == trial.evaluate("test")
    other = started(task, configuration)
    other.load_weights(tmp_path / "weights")
    assert other.evaluate("test") == trial.evaluate("test")


def test_a_checkpoint_without_its_average_is_not_used(make_images: Make, configure: Make, tmp_path: Path) -> None:
    task, configuration = make_images(), configure(ema_decay=0.9, epochs=2)
    trial = started(task, configuration, checkpoint=tmp_path / "trial.ckpt")
    run(trial)
    again = started(task, configuration, checkpoint=tmp_path / "trial.ckpt")
    assert differences(again, trial) == []
    trial.state.average = None
    trial._save(trial.curve, 2, 0.0)
    assert started(task, configuration, checkpoint=tmp_path / "trial.ckpt").curve == []


def test_memory_that_runs_out_does_not_change_the_average_of_other_steps(
    make_images: Make, configure: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_images(dropout=0.0)
    trial, seen = started(task, configure(ema_decay=0.9, epochs=3)), []
    loss = task.loss

    def limited(model: nn.Module, batch: Any, **options: Any) -> Any:
        seen.append(len(batch))
        if len(seen) == 8:  # five steps an epoch: in the second
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(model, batch, **options)

    monkeypatch.setattr(task, "loss", limited)
    run(trial)
    assert trial.recovered is not None
    assert trial.state.average is not None
    assert trial.state.average.updates == sum(trial.learning_rate.steps(epoch) for epoch in range(3))
    assert [record.epoch for record in trial.curve if record.others] == [1, 2, 3]


def test_slots_go_on_one_after_another_and_say_so_once(
    make_images: Make, configure: Make, caplog: pytest.LogCaptureFixture
) -> None:
    task, configuration = make_images(), configure(ema_decay=0.9, epochs=2)
    alone = [run(start(task, configuration, seed=seed)) for seed in range(2)]
    slots: list[Trial] = [start(task, configuration, seed=seed) for seed in range(2)]
    engine = FusedTrainer(task, 2)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            engine.train(slots)
            for trial in slots:
                next(trial.epochs())
    assert [differences(one, other) for one, other in zip(alone, slots, strict=True)] == [[], []]
    assert caplog.text.count("the average of the weights (ema_decay) has no fused form") == 1


def test_no_average_is_as_before(make_images: Make, configure: Make) -> None:
    task = make_images()
    plain, off = (started(task, each) for each in (configure(epochs=1), configure(epochs=1, ema_decay=0.0)))
    assert plain.configuration.identity(0) == off.configuration.identity(0)
    run(plain), run(off)
    assert timeless(plain.curve) == timeless(off.curve)
    assert weights(off).keys() == weights(plain).keys()
