from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ralr_tune.errors import DataError, TrialError, UsageError
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.trial import Trial
from ralr_tune.training.start import start
from tests.training.trials import run, timeless, weights

Make = Callable[..., Any]

AMPLIFY = {"probability": 0.5, "lower": 1.0, "width": 2.0}


# ---------------------------------------------------------------- training


def test_it_learns(make_images: Make, configure: Make) -> None:
    trial = run(start(make_images(), configure(epochs=8, options={"momentum": 0.9}), seed=0))
    assert [record.epoch for record in trial.curve] == list(range(1, 9))
    assert trial.curve[-1].value > 0.9
    assert trial.curve[-1].train_loss < trial.curve[0].train_loss
    assert trial.evaluate("test") > 0.8
    assert trial.train_value() == trial.evaluate("probe")


@pytest.mark.parametrize("granularity", ["epoch", "step"])
def test_every_step_uses_its_learning_rate(make_line: Make, configure: Make, granularity: str) -> None:
    configuration = configure(
        schedule={"name": "cosine", "granularity": granularity}, amplify=AMPLIFY | {"granularity": granularity}
    )
    rate = configuration.learning_rate(3, seed=derive_seed("amplify", 7))
    trial = run(start(make_line(), configuration, seed=7))
    assert [record.value for record in trial.curve] == pytest.approx(-np.cumsum(rate.trace().sum(1)), rel=1e-5)
    assert [record.lr for record in trial.curve] == rate.trace()[:, 0].tolist()
    assert [record.factor for record in trial.curve] == [rate.factors(epoch)[0] for epoch in range(4)]
    assert len({record.factor for record in trial.curve}) > 1


def test_train_loss_is_the_mean_over_samples(make_images: Make, configure: Make) -> None:
    task = make_images()
    seen: list[tuple[float, int]] = []
    loss = task.loss

    def spy(model: nn.Module, batch: Any, *, options: Any) -> Tensor:
        value = loss(model, batch, options=options)
        seen.append((value.item(), len(batch)))
        return value  # type: ignore[no-any-return]

    task.loss = spy
    trial = run(start(task, configure(epochs=1), seed=0))
    assert len({count for _, count in seen}) == 2  # the last batch is smaller
    assert trial.curve[0].train_loss == pytest.approx(sum(v * n for v, n in seen) / sum(n for _, n in seen), rel=1e-5)


def test_gradients_are_clipped(make_line: Make, configure: Make) -> None:
    trial = run(start(make_line(), configure(epochs=1, clip_norm=0.5), seed=0))
    assert trial.curve[0].value == pytest.approx(-0.5 * 3 * 0.1, rel=1e-4)


def test_label_smoothing_reaches_the_loss(make_images: Make, configure: Make) -> None:
    plain, smooth = (
        run(start(make_images(), configure(epochs=1, label_smoothing=share), seed=0)).curve[0].train_loss
        for share in (0.0, 0.5)
    )
    assert plain != smooth


def test_training_and_evaluated_splits(make_line: Make, make_images: Make, configure: Make) -> None:
    task = make_line()
    run(start(task, configure(epochs=1), seed=0))
    run(start(task, configure(epochs=1), seed=0, split="train+validation"))
    assert task.trained_on == ["train", "train+validation"]
    trial = run(start(make_images(), configure(epochs=2), seed=0, split="train+validation"))
    assert trial.curve[-1].value == trial.train_value()


def drawn() -> tuple[float, float, float]:
    return torch.rand(1).item(), np.random.rand(), random.random()


def test_the_callers_generators_are_not_changed(make_images: Make, configure: Make) -> None:
    draws = []
    for train in (False, True):
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        if train:
            run(start(make_images(dropout=0.5), configure(epochs=1, augment=("crop",)), seed=0))
        draws.append(drawn())
    assert draws[0] == draws[1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels_last", ["auto", False, True])
def test_precisions_and_memory_formats_train(
    make_images: Make, configure: Make, precision: str, channels_last: bool | str
) -> None:
    configuration = configure(epochs=1, precision=precision, channels_last=channels_last)
    trial = run(start(make_images(size=16), configuration, seed=0))
    assert math.isfinite(trial.curve[0].train_loss)
    assert weights(trial)["head.1.weight"].dtype == torch.float32


# ---------------------------------------------------------------- seeds


class Recorder:
    """Records the batches and the initial weights of a trial."""

    def __init__(self, task: Any) -> None:
        self.batches: list[Tensor] = []
        self.first: list[Tensor] = []
        loss, build = task.loss, task.build_model

        def spy(model: nn.Module, batch: Any, *, options: Any) -> Tensor:
            self.batches.append(batch.images.clone())
            return loss(model, batch, options=options)  # type: ignore[no-any-return]

        def build_and_look(seed: int) -> nn.Module:
            model: nn.Module = build(seed)
            self.first = [weight.detach().clone() for weight in model.parameters()]
            return model

        task.loss, task.build_model = spy, build_and_look


def recorded(make_images: Make, configuration: Any, seed: int) -> tuple[Recorder, Trial]:
    task = make_images(dropout=0.3)
    recorder = Recorder(task)
    return recorder, run(start(task, configuration, seed=seed))


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_twin_differs_only_in_its_amplification(make_images: Make, configure: Make) -> None:
    configuration = configure(epochs=3, augment=("crop", "flip"), amplify=AMPLIFY | {"probability": 1.0})
    ralr, amplified = recorded(make_images, configuration, seed=3)
    twin, plain = recorded(make_images, configuration.without_amplification(), seed=3)
    assert equal(ralr.first, twin.first)
    assert equal(ralr.batches, twin.batches)
    assert [record.factor for record in plain.curve] == [1.0] * 3
    assert amplified.curve[-1].train_loss != plain.curve[-1].train_loss


def test_seeds_differ_in_everything(make_images: Make, configure: Make) -> None:
    configuration = configure(epochs=2, augment=("crop",), amplify=AMPLIFY)
    one, trial = recorded(make_images, configuration, seed=3)
    other, other_trial = recorded(make_images, configuration, seed=4)
    assert not equal(one.first, other.first)
    assert not equal(one.batches, other.batches)
    again, again_trial = recorded(make_images, configuration, seed=3)
    assert equal(one.batches, again.batches)
    assert timeless(trial.curve) == timeless(again_trial.curve) != timeless(other_trial.curve)


@pytest.mark.parametrize("generator", [0, 1, 2], ids=["torch", "numpy", "python"])
def test_dropout_differs_in_every_epoch_of_every_seed(make_line: Make, configure: Make, generator: int) -> None:
    def draws(seed: int) -> list[float]:
        trial = run(start(make_line(lambda step: drawn()[generator]), configure(), seed=seed))
        return [record.train_loss for record in trial.curve]

    assert draws(0) == draws(0)
    assert len({*draws(0), *draws(1)}) == 8


# ---------------------------------------------------------------- failures


def failing(kind: str, step: int = 4) -> Callable[[int], float | None]:
    """A function for LineTask that fails in the second epoch of three steps."""

    def throw(error: Exception) -> float:
        raise error

    answers: dict[str, Callable[[], float]] = {
        "inf": lambda: math.inf,
        "nan": lambda: math.nan,
        "data": lambda: throw(DataError("bee.png: not a readable image")),
        "other": lambda: throw(RuntimeError("something else")),
    }
    return lambda now: answers[kind]() if now == step else None


@pytest.mark.parametrize(
    ("kind", "expected", "message"),
    [
        ("inf", "diverged", "training loss inf in epoch 2, learning rate 0.1"),
        ("nan", "diverged", "training loss nan in epoch 2"),
        ("data", "data", "bee.png: not a readable image"),
    ],
)
def test_failures_have_their_kind(
    make_line: Make, configure: Make, tmp_path: Path, kind: str, expected: str, message: str
) -> None:
    task = make_line(failing(kind))
    trial = start(task, configure(), seed=0, checkpoint=tmp_path / "trial.pt")
    with pytest.raises(TrialError, match=message) as caught:
        run(trial)
    assert caught.value.kind == expected
    assert task.steps_done <= 6  # ended with the epoch
    assert len(trial.curve) == 1
    assert len(start(make_line(), configure(), seed=0, checkpoint=tmp_path / "trial.pt").curve) == 1


def test_bugs_are_not_converted(make_line: Make, configure: Make) -> None:
    with pytest.raises(RuntimeError, match="something else"):
        run(start(make_line(failing("other")), configure(), seed=0))


def test_a_rate_that_is_far_too_large_ends_the_trial_immediately(make_images: Make, configure: Make) -> None:
    trial = start(make_images(), configure(lr=1e6, weight_decay=0.1, epochs=50), seed=0)
    with pytest.raises(TrialError) as caught:
        run(trial)
    assert caught.value.kind == "diverged"
    assert len(trial.curve) <= 1


def test_weights_that_diverge_in_the_last_step_are_detected(make_line: Make, configure: Make) -> None:
    task = make_line()
    task.evaluate = lambda model, split, **options: math.nan
    with pytest.raises(TrialError, match=r"outputs are not finite after epoch 1, learning rate 0\.1") as caught:
        run(start(task, configure(), seed=0))
    assert caught.value.kind == "diverged"


def test_unknown_augmentation_is_a_usage_error(make_images: Make, configure: Make) -> None:
    """A configuration refuses it earlier unless it was modified without validation."""
    whole = configure()
    training = whole.training.model_copy(update={"augment": ("mix",)})
    with pytest.raises(UsageError, match=r"'mix' is unknown; allowed: .*crop, flip, .*mixup, cutmix"):
        run(start(make_images(), whole.model_copy(update={"training": training}), seed=0))


def test_a_compiler_that_fails_is_a_trial_error(
    make_images: Make, configure: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: object, inputs: object) -> Callable[..., Any]:
        raise RuntimeError("no C++ compiler")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: original(model, backend=broken))
    trial = start(make_images(), configure(compile=True), seed=0)
    with pytest.raises(TrialError, match=r"training\.compile: compilation failed: .*; set compile = false") as caught:
        run(trial)
    assert caught.value.kind == "bug"


def test_no_warning_reaches_the_user(
    make_images: Make, configure: Make, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_images()
    loss = task.loss

    def noisy(*arguments: Any, **options: Any) -> Tensor:
        warnings.warn("old-fashioned", FutureWarning, stacklevel=1)
        return loss(*arguments, **options)  # type: ignore[no-any-return]

    task.loss = noisy
    with caplog.at_level("INFO"):
        run(start(task, configure(epochs=1), seed=0))
    assert not recwarn.list
    assert "old-fashioned" in caplog.text
