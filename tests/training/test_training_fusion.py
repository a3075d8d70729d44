"""Fused trials: each learns the same as without fusion, and each may continue without it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ralr_tune.errors import TrialError, UsageError
from ralr_tune.models.registry import build
from ralr_tune.tasks.slots import parse_slots
from ralr_tune.tasks.trial import Trial
from ralr_tune.training.fused import FusedNetwork, Stack, Unfusable, check
from ralr_tune.training.fusion import FusedTrainer
from ralr_tune.training.loop import TorchTrial
from ralr_tune.training.slot import SlotEpoch
from ralr_tune.training.start import start
from tests.cards import GIB, Card
from tests.training.trials import differences, run

Make = Callable[..., Any]

TOLERANCE = 2e-3
"""Relative difference of the training losses of a short run; grouped convolutions add in another order."""

RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"options": {"momentum": 0.9}},
    "dampened": {"options": {"momentum": 0.9, "dampening": 0.3}, "weight_decay": 1e-3},
    "nesterov": {"options": {"momentum": 0.9, "nesterov": True}, "weight_decay": 1e-3},
    "adam": {"optimizer": "adam", "weight_decay": 1e-3, "lr": 0.003},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "lr": 0.003, "options": {"betas": (0.8, 0.99)}},
    "decay along a curve": {
        "weight_decay": 0.05,
        "weight_decay_schedule": "cosine",
        "options": {"momentum": 0.9},
    },
    "decay without amplification": {
        "optimizer": "adamw",
        "lr": 0.003,
        "weight_decay": 0.2,
        "weight_decay_follows": "base",
        "amplify": {"probability": 0.5, "lower": 2.0, "width": 2.0, "granularity": "step"},
    },
    "shuffled": {"augment": ("rand_augment", "random_erasing", "mixup"), "mixup_alpha": 0.4},
    "clipped": {"clip_norm": 0.5, "options": {"momentum": 0.9}},
    "augmented": {"augment": ("crop", "flip", "cutout")},
    "mixed": {"augment": ("crop", "mixup", "cutmix"), "label_smoothing": 0.1},
}


def train(engine: FusedTrainer, trials: Sequence[Trial], epochs: int | None = None) -> None:
    """Like a worker: an epoch of all, then each trial's own record of it."""
    running = {trial: trial.epochs() for trial in trials}
    while running and epochs != 0:
        engine.train(list(running))
        for trial, records in list(running.items()):
            if next(records, None) is None:
                del running[trial]
        epochs = None if epochs is None else epochs - 1


def losses(trial: Trial) -> list[float]:
    return [record.train_loss for record in trial.curve]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many trials were fused, epoch by epoch."""
    counts: list[int] = []
    epoch = FusedTrainer._trained

    def counting(self: FusedTrainer, trials: Sequence[SlotEpoch]) -> tuple[list[float], list[float]]:
        counts.append(len(trials))
        return epoch(self, trials)

    monkeypatch.setattr(FusedTrainer, "_trained", counting)
    return counts


def test_slots_with_stochastic_depth_learn_the_same(make_images: Make, configure: Make, together: list[int]) -> None:
    """The same samples drop the same branches: on a CPU, the draws of a slot are those of its trial."""
    task = make_images(model="preresnet8", stochastic_depth_prob=0.5)
    configurations = [configure(lr=0.05 / (1 + k), epochs=2, channels_last=True) for k in range(2)]
    alone = [run(start(task, each, seed=k)) for k, each in enumerate(configurations)]
    slots = [start(task, each, seed=k) for k, each in enumerate(configurations)]
    train(FusedTrainer(task, 2), slots)
    assert together == [2, 2]
    for one, other in zip(alone, slots, strict=True):
        assert losses(other) == pytest.approx(losses(one), rel=TOLERANCE)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_slot_learns_the_same_as_its_trial_without_fusion(
    make_images: Make, configure: Make, recipe: dict[str, Any], together: list[int]
) -> None:
    """Every slot has its own rate, weight decay, number of epochs and seed, and dropout."""
    task = make_images(dropout=0.2)
    recipe = {"lr": 0.1, "weight_decay": 0.0} | recipe
    configurations = [
        configure(
            **recipe | {"lr": recipe["lr"] / (1 + k), "weight_decay": recipe["weight_decay"] * k, "epochs": 3 + k}
        )
        for k in range(3)
    ]
    alone = [run(start(task, each, seed=k)) for k, each in enumerate(configurations)]
    slots = [start(task, each, seed=k) for k, each in enumerate(configurations)]
    train(FusedTrainer(task, 3), slots)
    assert together == [3, 3, 3, 2]
    for one, other in zip(alone, slots, strict=True):
        assert losses(other) == pytest.approx(losses(one), rel=TOLERANCE)
        assert other.curve[-1].value == pytest.approx(other.evaluate("validation"), abs=0.021)  # one of 48 images
        assert [record.lr for record in other.curve] == [record.lr for record in one.curve]
        assert other.evaluate("test") == pytest.approx(one.evaluate("test"), abs=0.1)


def test_slots_are_evaluated_like_each_network(make_images: Make) -> None:
    """Two outputs that are equal except for rounding could change the class; these networks have none."""
    task = make_images()
    models = [task.build_model(seed) for seed in range(3)]
    fused, stack = FusedNetwork(models[0]), Stack(models)
    with torch.no_grad():
        stack.weights[2, -1] = float("nan")
    network = partial(fused, stack, training=False)
    found = task.fused_evaluate(network, "validation", slots=3, autocast=nullcontext)
    assert found[:2] == [task.evaluate(model, "validation") for model in models[:2]]
    assert math.isnan(found[2])


def test_a_slot_that_ends_is_reused_by_another_trial(make_images: Make, configure: Make, together: list[int]) -> None:
    task, engine = make_images(), FusedTrainer(make_images(), 2)
    alone = [run(start(task, configure(epochs=3), seed=seed)) for seed in range(3)]
    first, second, third = (start(task, configure(epochs=3), seed=seed) for seed in range(3))
    train(engine, [first, second], epochs=2)
    train(engine, [second, third])  # second is in its last epoch, third in its first
    assert together == [2, 2, 2]
    for slot, one in [(1, second), (2, third)]:
        assert losses(one) == pytest.approx(losses(alone[slot]), rel=TOLERANCE)
    assert len(first.curve) == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("fused_first", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_trial_changes_between_fused_and_separate_training(
    make_images: Make, configure: Make, tmp_path: Path, optimizer: str, fused_first: bool, channels_last: bool
) -> None:
    """Each engine resumes from what the other wrote: checkpoint, optimizer, number of steps and curve."""
    options = {"momentum": 0.9} if optimizer == "sgd" else {}
    task = make_images()
    configuration = configure(optimizer=optimizer, lr=0.01, options=options, epochs=4, channels_last=channels_last)
    whole = run(start(task, configuration, seed=0))
    slots = [start(task, configuration, seed=seed, checkpoint=tmp_path / f"{seed}") for seed in (0, 1)]
    train(FusedTrainer(task, 2 if fused_first else 1), slots, epochs=2)
    again = [start(task, configuration, seed=seed, checkpoint=tmp_path / f"{seed}") for seed in (0, 1)]
    assert [len(trial.curve) for trial in again] == [2, 2]
    train(FusedTrainer(task, 1 if fused_first else 2), again)
    assert losses(again[0]) == pytest.approx(losses(whole), rel=TOLERANCE)


def test_a_trial_that_leaves_its_slot_keeps_its_memory_format(make_images: Make, configure: Make) -> None:
    """torch's fused optimizers process weight, gradient and momentum in memory order and ignore strides:
    with a momentum in another format, three epochs silently end with other losses."""
    task, configuration = make_images(), configure(options={"momentum": 0.9}, epochs=4, lr=0.1, channels_last=True)
    whole = run(start(task, configuration, seed=0))
    slots = [start(task, configuration, seed=seed) for seed in (0, 1)]
    train(FusedTrainer(task, 2), slots, epochs=1)
    assert losses(run(slots[0])) == pytest.approx(losses(whole), rel=TOLERANCE)


def test_a_single_trial_is_trained_without_fusion(make_images: Make, configure: Make) -> None:
    task = make_images(dropout=0.2)
    alone, other = (start(task, configure(epochs=2), seed=0) for _ in range(2))
    run(alone)
    train(FusedTrainer(task, 4), [other])
    assert differences(other, alone) == []


def test_trials_with_different_keys_are_trained_separately(
    make_images: Make, configure: Make, together: list[int]
) -> None:
    task = make_images()
    different: list[dict[str, Any]] = [
        {"batch_size": 20},
        {"augment": ("flip",)},
        {"label_smoothing": 0.1},
        {"options": {"momentum": 0.5}},
        {"clip_norm": 1.0},
        {"optimizer": "adam"},
        {"optimizer": "rmsprop"},
        {"optimizer": "adam", "options": {"amsgrad": True}},
        {"compile": True},
    ]
    equal = [{}, {"lr": 0.01}]
    trials = [start(task, configure(epochs=1, **training), seed=0) for training in [*different, *equal]]
    train(FusedTrainer(task, 8), trials[:-3] + trials[-2:])  # all except the compiled one, which would be slow
    assert together == [2]
    assert isinstance(trials[-3], TorchTrial)
    assert SlotEpoch(trials[-3]).key() is None
    assert all(len(trial.curve) == 1 for trial in trials[:-3] + trials[-2:])


def test_if_memory_runs_out_fewer_are_trained_at_once_and_none_is_lost(
    make_images: Make, configure: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_images()
    alone = [run(start(task, configure(epochs=3), seed=seed)) for seed in range(4)]
    epoch, counts = FusedTrainer._trained, []

    def narrow(self: FusedTrainer, trials: Sequence[SlotEpoch]) -> tuple[list[float], list[float]]:
        counts.append(len(trials))
        if len(trials) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return epoch(self, trials)

    monkeypatch.setattr(FusedTrainer, "_trained", narrow)
    engine, slots = FusedTrainer(task, 4), [start(task, configure(epochs=3), seed=seed) for seed in range(4)]
    train(engine, slots)
    assert counts == [4, 2, 2, 2, 2]
    assert engine.slots == 2
    for one, other in zip(alone, slots, strict=True):
        assert losses(other) == pytest.approx(losses(one), rel=TOLERANCE)
        assert other.recovered is None


def test_a_slot_that_diverges_does_not_affect_the_others(make_images: Make, configure: Make) -> None:
    task = make_images()
    alone = run(start(task, configure(epochs=3), seed=0))
    good, bad = (start(task, configure(epochs=3), seed=seed) for seed in (0, 1))
    assert isinstance(bad, TorchTrial)
    with torch.no_grad():
        next(bad.state.model.parameters()).fill_(float("nan"))
    engine, records = FusedTrainer(task, 2), [good.epochs(), bad.epochs()]
    engine.train([good, bad])
    next(records[0])
    with pytest.raises(TrialError) as caught:
        next(records[1])
    assert caught.value.kind == "diverged"
    train(engine, [good])
    assert losses(good) == pytest.approx(losses(alone), rel=TOLERANCE)


# ---------------------------------------------------------------- which networks


class Sideways(nn.Module):
    """Works, but computes something else when its input has other networks' channels, too."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=1, keepdim=True)


def network(*layers: nn.Module) -> Callable[[], nn.Module]:
    """Creates networks with these layers, each with its own copies."""
    whole = nn.Sequential(nn.Conv2d(2, 8, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    return lambda: copy.deepcopy(whole)


def frozen() -> nn.Module:
    model = network()()
    next(model.parameters()).requires_grad_(False)
    return model


def twice() -> nn.Module:
    layer = nn.Conv2d(8, 8, 1)
    return network(layer, layer)()


class Unused(nn.Sequential):
    """Has an unused layer."""

    def __init__(self) -> None:
        super().__init__(network()())
        self.spare = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Any:
        return self[0](x)


@pytest.mark.parametrize(("name", "channels"), [("small_cnn", 1), ("resnet20", 3), ("preresnet80", 3)])
def test_this_packages_networks_can_be_fused(name: str, channels: int) -> None:
    """preresnet80: untrained and in evaluation, outputs are so large that sums of float32 differ visibly."""
    check([build(name, classes=5, channels=channels, size=8) for _ in range(3)], (channels, 8, 8))


def test_grouped_convolutions_and_flattened_maps_can_be_fused() -> None:
    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(4, 8, 3, groups=2, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 6),
            nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3, bias=False),
        )  # fmt: skip

    check([model() for _ in range(3)], (4, 6, 6))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (network(Sideways()), "has different outputs"),
        (network(nn.GroupNorm(2, 8)), "GroupNorm has weights and no fused form"),
        (network(nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")), "circular padding"),
        (network(nn.BatchNorm2d(8, momentum=None)), "without a moving average"),
        (network(nn.BatchNorm2d(8, track_running_stats=False)), "without a moving average"),
        (frozen, "weights that are not trained"),
        (twice, "is shared by two layers"),
        (Unused, "weights without a gradient"),
    ],
)
def test_other_networks_cannot_be_fused(model: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(Unfusable, match=reason):
        check([model(), model(), model()], (2, 8, 8))


def test_a_network_that_cannot_be_fused_is_trained_separately(
    make_images: Make, configure: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ralr_tune.training.fused._FUSED_FORMS", {})
    task = make_images()
    alone, slots = ([start(task, configure(epochs=2), seed=seed) for seed in range(2)] for _ in range(2))
    with caplog.at_level("INFO"):
        train(FusedTrainer(task, 2), slots)
    for one, other in zip(alone, slots, strict=True):
        assert differences(other, run(one)) == []
    assert caplog.text.count("this network cannot be fused: Conv2d has weights and no fused form") == 1


@pytest.mark.parametrize(("device", "fraction", "count"), [("cuda:1", 1.0, 1), ("cuda:1", 0.25, 0), ("cpu", 1.0, 0)])
def test_then_the_log_suggests_several_processes_on_a_gpu(
    make_images: Make,
    configure: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    device: str,
    fraction: float,
    count: int,
) -> None:
    """Not if there are several already, and not on a CPU, which has several by default."""
    monkeypatch.setattr("ralr_tune.training.fused._FUSED_FORMS", {})
    Card(free=GIB, fraction=fraction).insert(monkeypatch)
    task = make_images()
    trials = [start(task, configure(epochs=1), seed=seed) for seed in range(2)]
    task.device = device
    with caplog.at_level("INFO"):
        FusedTrainer(task, 2).train(trials)
    assert caplog.text.count("this network cannot be fused") == 1
    assert caplog.text.count("`run --workers N` puts N processes on cuda:1") == count


# ---------------------------------------------------------------- how many


@pytest.mark.parametrize(
    ("seconds", "waiting", "slots"),
    [
        ({1: 8.0, 2: 8.1}, 800, 1),
        ({1: 8.0, 2: 7.9, 4: 7.0, 8: 7.0}, 800, 1),
        ({1: 8.0, 2: 7.9, 4: 4.0, 8: 3.9}, 800, 4),
        ({1: 8.0, 2: 5.0, 4: 4.9}, 800, 2),
        ({1: 8.0, 2: 5.0, 4: 3.0, 8: 2.0, 16: 1.9}, 800, 8),
        ({1: 8.0, 2: 5.0, 4: 3.0}, 39, 4),
        ({}, 15, 1),
    ],
)
def test_auto_chooses_the_number_of_slots_beyond_which_there_is_no_gain(
    make_images: Make,
    configure: Make,
    monkeypatch: pytest.MonkeyPatch,
    seconds: dict[int, float],
    waiting: int,
    slots: int,
) -> None:
    monkeypatch.setattr(FusedTrainer, "_seconds", lambda self, epoch, slots: seconds[slots])
    task = make_images()
    engine = FusedTrainer(task, "auto")
    engine.settle(start(task, configure(), seed=0), lambda: waiting)
    assert engine.slots == slots


def test_auto_times_steps_without_changing_the_trial(make_images: Make, configure: Make) -> None:
    task = make_images(dropout=0.2)
    alone, timed = (start(task, configure(epochs=2), seed=0) for _ in range(2))
    run(alone)
    engine = FusedTrainer(task, "auto")
    engine.settle(timed, lambda: 64)
    assert engine.slots in (1, 2, 4, 8)
    run(timed)
    assert differences(timed, alone) == []


def test_auto_stays_serial_if_memory_runs_out(
    make_images: Make, configure: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: FusedTrainer, epoch: SlotEpoch, slots: int) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FusedTrainer, "_seconds", full)
    task = make_images()
    engine = FusedTrainer(task, "auto")
    engine.settle(start(task, configure(), seed=0), lambda: 64)
    assert engine.slots == 1


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", ""])
def test_impossible_slots_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="allowed: auto, or a number"):
        parse_slots(text)


def test_slots_are_numbers_or_auto() -> None:
    assert (parse_slots("auto"), parse_slots("3")) == ("auto", 3)
