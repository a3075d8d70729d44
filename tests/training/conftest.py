from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ralr_tune.models.registry import build
from ralr_tune.spec import Configuration
from ralr_tune.tasks.base import Autocast, Metric, Split
from ralr_tune.tasks.classification import ClassificationTask
from ralr_tune.tasks.samples import Samples, Source, all_samples


def _samples(count: int, size: int, seed: int) -> Samples:
    """Noise with a bright stripe whose place is the class."""
    images = np.random.default_rng(seed).integers(0, 160, (count, 1, size, size), dtype=np.uint8)
    labels = np.arange(count) % 4
    for image, label in zip(images, labels, strict=True):
        image[0, label * size // 4] = 255
    return all_samples(labels, lambda rows: images[rows])


@pytest.fixture
def make_images() -> Callable[..., ClassificationTask]:
    """A task of 90 grey images in four classes; the keywords are the network's options."""

    def make(*, size: int = 8, model: str = "small_cnn", **options: Any) -> ClassificationTask:
        def network(classes: int, channels: int, size: int) -> nn.Module:
            return build(model, classes=classes, channels=channels, size=size, options=options)

        source = Source(("a", "b", "c", "d"), train=_samples(90, size, 0), test=lambda: _samples(20, size, 1))
        return ClassificationTask(source, build=network, validation=0.2, seed=0, device="cpu", identity="stripes")

    return make


@pytest.fixture
def configure() -> Callable[..., Configuration]:
    """A configuration: keywords are keys of [training]; `schedule`, `amplify` and `noise` are tables."""

    def make(
        *,
        schedule: dict[str, Any] | None = None,
        amplify: dict[str, Any] | None = None,
        noise: dict[str, Any] | None = None,
        **training: Any,
    ) -> Configuration:
        tables: dict[str, Any] = {
            "training": {"epochs": 4, "batch_size": 16, "lr": 0.1, "precision": "float32"} | training
        }
        tables |= {"schedule": schedule} if schedule else {}
        tables |= {"amplify": amplify} if amplify else {}
        return Configuration.model_validate(tables | ({"noise": noise} if noise else {}))

    return make


class Line(nn.Module):
    """One weight, at first zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class LineTask:
    """A TorchTask whose loss is its one weight: gradient 1, so that plain SGD moves the weight by the learning rate.

    `answer(step)`, step counted over the run, may give another loss or raise.
    """

    metric = Metric("weight", direction="maximize", worst=-1e9)
    identity = "line"
    device = "cpu"
    input_shape = (1,)
    epoch_steps = 3

    def __init__(self, answer: Callable[[int], float | None] = lambda step: None) -> None:
        self._answer = answer
        self.steps_done = 0
        self.trained_on: list[str] = []

    def build_model(self, seed: int) -> nn.Module:
        return Line()

    def steps(self, split: Split, batch_size: int) -> int:
        return self.epoch_steps

    def batches(
        self, split: Split, *, seed: int, epoch: int, batch_size: int, augment: Sequence[str] = ()
    ) -> Iterator[str]:
        self.trained_on.append(split)
        yield from ["batch"] * self.epoch_steps

    def loss(self, model: nn.Module, batch: object, *, label_smoothing: float = 0.0) -> Tensor:
        other = self._answer(self.steps_done)
        self.steps_done += 1
        weight = next(iter(model.parameters()))
        return weight.sum() if other is None else weight.sum() * 0 + other

    def evaluate(self, model: nn.Module, split: Split, *, autocast: Autocast | None = None) -> float:
        return next(iter(model.parameters())).item()


@pytest.fixture
def make_line() -> Callable[..., LineTask]:
    return LineTask
