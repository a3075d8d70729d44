"""Small trials for tests of training: a task of striped images, a task of one weight, and how to compare two runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.kinds.classification.samples import Samples, Source, all_samples
from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.metric import Metric
from ralr_tune.models.registry import build
from ralr_tune.records import EpochRecord
from ralr_tune.studyfile import Configuration, models
from ralr_tune.tasks.base import Autocast, Capabilities, Split
from ralr_tune.tasks.trial import Trial
from ralr_tune.training.loop import TorchTrial


def _samples(count: int, size: int, seed: int) -> Samples:
    """Noise with a bright stripe whose position is the class."""
    images = np.random.default_rng(seed).integers(0, 160, (count, 1, size, size), dtype=np.uint8)
    labels = np.arange(count) % 4
    for image, label in zip(images, labels, strict=True):
        image[0, label * size // 4] = 255
    return all_samples(labels, lambda rows: images[rows])


def images(*, size: int = 8, model: str = "small_cnn", **options: Any) -> ClassificationTask:
    """A task of 90 grey images in four classes; the keywords are the network's options."""

    def network(classes: int, channels: int, size: int) -> nn.Module:
        return build(model, classes=classes, channels=channels, size=size, options=options)

    source = Source(("a", "b", "c", "d"), train=_samples(90, size, 0), test=lambda: _samples(20, size, 1))
    return ClassificationTask(source, build=network, validation=0.2, seed=0, device="cpu", identity="stripes")


def configuration(
    *,
    schedule: dict[str, Any] | None = None,
    amplify: dict[str, Any] | None = None,
    noise: dict[str, Any] | None = None,
    **training: Any,
) -> Configuration:
    """Keywords are keys of [training]; `schedule`, `amplify` and `noise` are tables."""
    tables: dict[str, Any] = {"training": {"epochs": 4, "batch_size": 16, "lr": 0.1, "precision": "float32"} | training}
    tables |= {"schedule": schedule} if schedule else {}
    tables |= {"amplify": amplify} if amplify else {}
    return models.configuration(KIND).model_validate(tables | ({"noise": noise} if noise else {}))


def plain_network(num_classes: int, *, pixels: int = 64, dropout: float = 0.0) -> nn.Module:
    """Without batch normalisation: micro-batches add up to the whole batch's gradient."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, num_classes)
    )


def normalised_network(num_classes: int, *, pixels: int = 64) -> nn.Module:
    """Batch normalisation of vectors: it cannot train on one sample."""
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, num_classes))


PLAIN, NORMALISED = "tests.training.trials:plain_network", "tests.training.trials:normalised_network"


class Line(nn.Module):
    """One weight, initially zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class EqualSamples:
    """A batch of LineTask: `count` equal samples."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    @property
    def weight(self) -> float:
        return self._count

    @property
    def signature(self) -> Hashable:
        return self._count

    def split(self, parts: int) -> list[EqualSamples]:
        return [EqualSamples(self._count // parts + (part < self._count % parts)) for part in range(parts)]

    def clone(self) -> EqualSamples:
        return EqualSamples(self._count)

    def take(self, other: EqualSamples) -> None:
        pass


class LineTask:
    """A TorchTask whose loss is its one weight: gradient 1, so that plain SGD moves the weight by the learning rate.

    `answer(step)`, step counted over the run, may give another loss or raise.
    """

    metric = Metric("weight", direction="maximize", worst=-1e9)
    capabilities = Capabilities()
    identity = "line"
    device = "cpu"
    input_shape = (1,)
    epoch_steps = 3
    evaluation_batch = 8

    def __init__(self, answer: Callable[[int], float | None] = lambda step: None) -> None:
        self._answer = answer
        self.steps_done = 0
        self.trained_on: list[str] = []

    def build_model(self, seed: int) -> nn.Module:
        return Line()

    def size(self, split: Split) -> int:
        return self.evaluation_batch

    def steps(self, split: Split, batch_size: int, epoch: int = 0, *, seed: int = 0) -> int:
        return self.epoch_steps

    def batches(
        self, split: Split, *, seed: int, epoch: int, batch_size: int, options: Hashable
    ) -> Iterator[EqualSamples]:
        self.trained_on.append(split)
        yield from [EqualSamples(batch_size)] * self.epoch_steps

    def loss(self, model: nn.Module, batch: object, *, options: Hashable) -> Tensor:
        other = self._answer(self.steps_done)
        self.steps_done += 1
        weight = next(iter(model.parameters()))
        return weight.sum() if other is None else weight.sum() * 0 + other

    def evaluate(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> float:
        return next(iter(model.parameters())).item()


# ---------------------------------------------------------------- the result of a trial


def run(trial: Trial) -> Trial:
    for _ in trial.epochs():
        pass
    return trial


def timeless(curve: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in curve]


def weights(trial: Trial) -> dict[str, Tensor]:
    assert isinstance(trial, TorchTrial)
    return {name: tensor.detach().clone() for name, tensor in trial.state.model.state_dict().items()}


def optimizer_state(trial: Trial) -> dict[str, Any]:
    """By "WEIGHT NAME"."""
    assert isinstance(trial, TorchTrial)
    states = trial.state.optimizer_state()
    if "param_groups" in states:  # of an imported optimizer
        groups = {f"group {index}": group for index, group in enumerate(states["param_groups"])}
        states = {**states["state"], **groups}
    values = {f"{place} {name}": value for place, state in states.items() for name, value in state.items()}
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in values.items()}


def average(trial: Trial) -> dict[str, Any]:
    """The average of the weights and its age; empty without one."""
    assert isinstance(trial, TorchTrial)
    saved = trial.state.saved_average()
    return {} if saved is None else {**{name: each.clone() for name, each in saved.model.items()}, "t": saved.updates}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Bit for bit, including types and strides."""
    return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor):
        return type(one) is type(other) and one == other
    return (one.dtype, one.stride()) == (other.dtype, other.stride()) and torch.equal(one, other)


def differences(one: Trial, other: Trial) -> list[str]:
    """The differences of two trials, bit for bit, except for their times."""
    found = []
    if timeless(one.curve) != timeless(other.curve):
        found.append("curve")
    if not same(weights(one), weights(other)):
        found.append("weights")
    if not same(optimizer_state(one), optimizer_state(other)):
        found.append("optimizer")
    if not same(average(one), average(other)):
        found.append("average")
    if getattr(one, "metrics", []) != getattr(other, "metrics", []):
        found.append("metrics")
    return found
