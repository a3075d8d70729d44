from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ralr_tune.errors import DataError, TrialError, UsageError
from ralr_tune.records import EpochRecord
from ralr_tune.seeds import derive_seed
from ralr_tune.training.base import Trial
from ralr_tune.training.start import start

Make = Callable[..., Any]

AMPLIFY = {"probability": 0.5, "lower": 1.0, "width": 2.0}


def run(trial: Trial) -> Trial:
    for _ in trial.epochs():
        pass
    return trial


def timeless(curve: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in curve]


def weights(trial: Trial, folder: Path) -> dict[str, Tensor]:
    trial.save_weights(folder / "weights.safetensors")
    return load_file(folder / "weights.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ---------------------------------------------------------------- what is trained


def test_it_learns(make_images: Make, configure: Make) -> None:
    trial = run(start(make_images(), configure(epochs=8, options={"momentum": 0.9}), seed=0))
    assert [record.epoch for record in trial.curve] == list(range(1, 9))
    assert trial.curve[-1].value > 0.9
    assert trial.curve[-1].train_loss < trial.curve[0].train_loss
    assert trial.evaluate("test") > 0.8
    assert trial.train_value() == trial.evaluate("probe")


@pytest.mark.parametrize("granularity", ["epoch", "step"])
def test_every_step_takes_its_learning_rate(make_line: Make, configure: Make, granularity: str) -> None:
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

    def spy(model: nn.Module, batch: Any, *, label_smoothing: float) -> Tensor:
        value = loss(model, batch, label_smoothing=label_smoothing)
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


def test_what_is_trained_on_and_watched(make_line: Make, make_images: Make, configure: Make) -> None:
    task = make_line()
    run(start(task, configure(epochs=1), seed=0))
    run(start(task, configure(epochs=1), seed=0, split="train+validation"))
    assert task.trained_on == ["train", "train+validation"]
    trial = run(start(make_images(), configure(epochs=2), seed=0, split="train+validation"))
    assert trial.curve[-1].value == trial.train_value()


def test_the_callers_generator_is_left_alone(make_images: Make, configure: Make) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    run(start(make_images(dropout=0.5), configure(epochs=1, augment=("crop",)), seed=0))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels_last", [None, False, True])
def test_precisions_and_memory_orders_train(
    make_images: Make, configure: Make, tmp_path: Path, precision: str, channels_last: bool | None
) -> None:
    configuration = configure(epochs=1, precision=precision, channels_last=channels_last)
    trial = run(start(make_images(size=16), configuration, seed=0))
    assert math.isfinite(trial.curve[0].train_loss)
    assert weights(trial, tmp_path)["head.1.weight"].dtype == torch.float32


# ---------------------------------------------------------------- seeds


class Recorder:
    """Sees the batches and the network's first weights of a trial."""

    def __init__(self, task: Any) -> None:
        self.batches: list[Tensor] = []
        self.first: list[Tensor] = []
        loss, build = task.loss, task.build_model

        def spy(model: nn.Module, batch: Any, *, label_smoothing: float) -> Tensor:
            self.batches.append(batch.images.clone())
            return loss(model, batch, label_smoothing=label_smoothing)  # type: ignore[no-any-return]

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


def test_a_twin_differs_in_its_amplification_alone(make_images: Make, configure: Make) -> None:
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


def test_dropout_is_drawn_anew_in_every_epoch_of_every_seed(make_line: Make, configure: Make) -> None:
    def draws(seed: int) -> list[float]:
        trial = run(start(make_line(lambda step: torch.rand(1).item()), configure(), seed=seed))
        return [record.train_loss for record in trial.curve]

    assert draws(0) == draws(0)
    assert len({*draws(0), *draws(1)}) == 8


# ---------------------------------------------------------------- resume

RECIPES: dict[str, dict[str, Any]] = {
    "momentum": {"options": {"momentum": 0.9}, "weight_decay": 1e-3},
    "nesterov, all augmentation": {
        "options": {"momentum": 0.9, "nesterov": True},
        "augment": ("crop", "flip", "cutout"),
        "clip_norm": 1.0,
    },
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.01, "label_smoothing": 0.1},
    "amplified each epoch": {"amplify": AMPLIFY, "schedule": {"name": "cosine", "warmup": 1}},
    "amplified each step": {
        "amplify": AMPLIFY | {"granularity": "step"},
        "schedule": {"name": "cosine", "granularity": "step"},
    },
    "noise, no momentum, bfloat16": {"noise": {"amplitude": 0.5}, "precision": "bfloat16", "channels_last": True},
    "rmsprop": {"optimizer": "rmsprop", "lr": 0.01, "options": {"momentum": 0.5}},
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_after_every_epoch_equals_uninterrupted(
    make_images: Make, configure: Make, tmp_path: Path, recipe: str
) -> None:
    configuration = configure(**RECIPES[recipe])
    whole = run(start(make_images(dropout=0.3), configuration, seed=1))
    for _ in range(4):
        pieces = start(make_images(dropout=0.3), configuration, seed=1, checkpoint=tmp_path / "trial.pt")
        next(pieces.epochs())
    assert timeless(pieces.curve) == timeless(whole.curve)
    assert same(weights(pieces, tmp_path), weights(whole, tmp_path))


def test_killed_within_an_epoch_equals_uninterrupted(make_images: Make, configure: Make, tmp_path: Path) -> None:
    configuration = configure(**RECIPES["nesterov, all augmentation"])
    whole = run(start(make_images(dropout=0.3), configuration, seed=1))
    task = make_images(dropout=0.3)
    steps, loss = iter(range(100)), task.loss

    def killed(*arguments: Any, **options: Any) -> Tensor:
        if next(steps) == 11:  # five steps an epoch: in the third
            raise KeyboardInterrupt
        return loss(*arguments, **options)  # type: ignore[no-any-return]

    task.loss = killed
    with pytest.raises(KeyboardInterrupt):
        run(start(task, configuration, seed=1, checkpoint=tmp_path / "trial.pt"))
    resumed = start(make_images(dropout=0.3), configuration, seed=1, checkpoint=tmp_path / "trial.pt")
    assert len(resumed.curve) == 2
    run(resumed)
    assert timeless(resumed.curve) == timeless(whole.curve)
    assert same(weights(resumed, tmp_path), weights(whole, tmp_path))


def test_a_finished_trial_trains_nothing_more(make_line: Make, configure: Make, tmp_path: Path) -> None:
    first = run(start(make_line(), configure(), seed=0, checkpoint=tmp_path / "trial.pt"))
    task = make_line()
    again = run(start(task, configure(), seed=0, checkpoint=tmp_path / "trial.pt"))
    assert task.steps_done == 0
    assert again.curve == first.curve
    assert again.evaluate("validation") == first.curve[-1].value


def test_leaving_keeps_the_epochs_so_far(make_line: Make, configure: Make, tmp_path: Path) -> None:
    trial = start(make_line(), configure(), seed=0, checkpoint=tmp_path / "sub" / "trial.pt")
    with closing(trial.epochs()) as epochs:
        next(epochs)
        next(epochs)
    assert len(trial.curve) == 2
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["trial.pt"]
    assert len(start(make_line(), configure(), seed=0, checkpoint=tmp_path / "sub" / "trial.pt").curve) == 2


def test_another_number_of_threads_is_logged(
    make_line: Make,
    configure: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    next(start(make_line(), configure(), seed=0, checkpoint=tmp_path / "trial.pt").epochs())
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 6)
    with caplog.at_level("INFO"):
        trial = start(make_line(), configure(), seed=0, checkpoint=tmp_path / "trial.pt")
    assert len(trial.curve) == 1
    assert f"trained with {threads} threads, going on with {threads + 6}" in caplog.text


# ---------------------------------------------------------------- failures


def failing(kind: str, step: int = 4) -> Callable[[int], float | None]:
    """An answer for LineTask that fails in the second of its epochs of three steps."""

    def allocate() -> float:
        return torch.empty(2**59).sum().item()

    def throw(error: Exception) -> float:
        raise error

    answers: dict[str, Callable[[], float]] = {
        "inf": lambda: math.inf,
        "nan": lambda: math.nan,
        "device": lambda: throw(torch.OutOfMemoryError("CUDA out of memory.")),
        "host": allocate,
        "python": lambda: throw(MemoryError("no memory")),
        "data": lambda: throw(DataError("bee.png: not a readable image")),
        "other": lambda: throw(RuntimeError("something else")),
    }
    return lambda now: answers[kind]() if now == step else None


@pytest.mark.parametrize(
    ("kind", "expected", "message"),
    [
        ("inf", "diverged", "training loss inf in epoch 2, learning rate 0.1"),
        ("nan", "diverged", "training loss nan in epoch 2"),
        ("device", "oom", "CUDA out of memory"),
        ("host", "oom", "can't allocate memory"),
        ("python", "oom", "no memory"),
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


def test_bugs_pass_as_they_are(make_line: Make, configure: Make) -> None:
    with pytest.raises(RuntimeError, match="something else"):
        run(start(make_line(failing("other")), configure(), seed=0))


def test_a_rate_that_is_far_too_large_ends_the_trial_at_once(make_images: Make, configure: Make) -> None:
    trial = start(make_images(), configure(lr=1e6, weight_decay=0.1, epochs=50), seed=0)
    with pytest.raises(TrialError) as caught:
        run(trial)
    assert caught.value.kind == "diverged"
    assert len(trial.curve) <= 1


def test_weights_that_blew_up_in_the_last_step_are_found(make_line: Make, configure: Make) -> None:
    task = make_line()
    task.evaluate = lambda model, split, *, autocast: math.nan
    with pytest.raises(TrialError, match=r"outputs that are not finite after epoch 1, learning rate 0\.1") as caught:
        run(start(task, configure(), seed=0))
    assert caught.value.kind == "diverged"


def test_lack_of_memory_for_the_network_is_told(
    make_line: Make, configure: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: nn.Module, *arguments: Any, **options: Any) -> nn.Module:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(nn.Module, "to", full)
    with pytest.raises(TrialError) as caught:
        start(make_line(), configure(), seed=0)
    assert caught.value.kind == "oom"


def test_unknown_augmentation_is_a_usage_error(make_images: Make, configure: Make) -> None:
    with pytest.raises(UsageError, match="'mixup' is unknown; allowed: crop, flip, cutout"):
        run(start(make_images(), configure(augment=("mixup",)), seed=0))


def test_a_compiler_that_fails_is_told(make_images: Make, configure: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: object, inputs: object) -> Callable[..., Any]:
        raise RuntimeError("no C++ compiler")

    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: original(self, backend=broken))
    trial = start(make_images(), configure(compile=True), seed=0)
    with pytest.raises(TrialError, match=r"training\.compile = true failed: .*; train with compile = false") as caught:
        run(trial)
    assert caught.value.kind == "bug"


@pytest.mark.slow
def test_compiled_networks_train(make_images: Make, configure: Make, tmp_path: Path) -> None:
    plain, compiled = (
        run(start(make_images(), configure(epochs=2, compile=compile), seed=0)) for compile in (False, True)
    )
    assert compiled.curve[-1].train_loss == pytest.approx(plain.curve[-1].train_loss, rel=1e-2)
    assert weights(compiled, tmp_path).keys() == weights(plain, tmp_path).keys()


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


# ---------------------------------------------------------------- weights


def test_weights_travel(make_images: Make, configure: Make, tmp_path: Path) -> None:
    trained = run(start(make_images(), configure(epochs=2, channels_last=True), seed=0))
    trained.save_weights(tmp_path / "out" / "model.safetensors")
    fresh = start(make_images(), configure(epochs=2), seed=9)
    assert fresh.evaluate("test") != trained.evaluate("test")
    fresh.load_weights(tmp_path / "out" / "model.safetensors")
    assert fresh.evaluate("test") == trained.evaluate("test")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.safetensors"]


@pytest.fixture
def foreign_weights(make_line: Make, configure: Make, tmp_path: Path) -> dict[str, Path]:
    start(make_line(), configure(), seed=0).save_weights(tmp_path / "foreign")
    (tmp_path / "garbage").write_bytes(b"garbage")
    return {name: tmp_path / name for name in ("foreign", "garbage", "missing")}


@pytest.mark.parametrize("name", ["foreign", "garbage", "missing"])
def test_wrong_weights_are_told(
    make_images: Make, configure: Make, foreign_weights: dict[str, Path], name: str
) -> None:
    with pytest.raises(DataError, match=f"{name}: no weights of this network"):
        start(make_images(), configure(), seed=0).load_weights(foreign_weights[name])
