"""Object detection: images of any size, decoded and augmented batch by batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ralr_tune.errors import DataError
from ralr_tune.kinds.detection.annotated import Part, Picture, Source
from ralr_tune.kinds.detection.augment import generator_of
from ralr_tune.kinds.detection.batches import DetectionBatch, batch_count
from ralr_tune.kinds.detection.feeding import aspect_ratios, detect, training_batches
from ralr_tune.kinds.detection.loading import PictureLoader
from ralr_tune.kinds.detection.metrics import METRICS
from ralr_tune.kinds.detection.options import DetectionOptions
from ralr_tune.kinds.detection.scores import Detections, precisions
from ralr_tune.kinds.detection.splits import hold_out
from ralr_tune.machine.sharing import is_cuda
from ralr_tune.metric import Metric
from ralr_tune.records import Inventory
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import Autocast, Batch, Capabilities, Split

PLAIN = DetectionOptions()

EVALUATION_BATCH = {"cpu": 4, "cuda": 16}
"""Images of one evaluation batch, by type of device."""

PREPARED = 4
"""Batches that threads prepare ahead for a GPU. A CPU trains on the same cores: there it would gain nothing."""


class DetectionTask:
    """The TorchTask of annotated images (see tasks.base).

    `validation`: share of the training images that is held out, drawn from `seed`, unless the source has validation
    data. Raises DataError if a split would be empty.
    """

    def __init__(
        self,
        source: Source,
        *,
        build: Callable[[int], nn.Module],
        loader: PictureLoader,
        validation: float,
        seed: int,
        device: str,
        identity: str,
        evaluate_every: int = 1,
        origin: object = None,
        metric: Metric = METRICS["map"],
    ) -> None:
        """`build`: builds the network for so many classes, with weights from torch's global generator. `origin`:
        describes how the data were read; tasks with equal origins can share them."""
        self.device, self.metric, self.identity, self.origin = device, metric, identity, origin
        self.capabilities = Capabilities(evaluate_every=evaluate_every, measures=True)
        self.classes = source.classes
        self._build, self._loader, self._read_test = build, loader, source.test
        self._splits = _splits(source, validation, seed)
        self.inventory: Inventory | None = None
        """What the data hold, if `load` was given a folder that remembers it."""

    def with_network(
        self, build: Callable[[int], nn.Module], identity: str, loader: PictureLoader, evaluate_every: int
    ) -> DetectionTask:
        """A task with another network that shares the annotations of this one."""
        other = copy.copy(self)
        other._build, other.identity, other._loader = build, identity, loader
        other.capabilities = Capabilities(evaluate_every=evaluate_every, measures=True)
        return other

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(3, H, W) of a square image: sizes vary, and this one stands for them in the choice of a number format."""
        return (3, self._loader.side, self._loader.side)

    def build_model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("init", seed))
            return self._build(len(self.classes))

    def pictures(self, split: Split) -> Sequence[Picture]:
        """The images of a split; reads the annotations of "test" when it is first requested."""
        if split == "test" and "test" not in self._splits:
            self._splits["test"] = _not_empty(self._read_test(), "test").pictures
        return self._splits[split]

    def size(self, split: Split) -> int:
        return len(self.pictures(split))

    def steps(self, split: Split, batch_size: int, epoch: int = 0, *, seed: int = 0) -> int:
        """The same for every epoch and seed."""
        return batch_count(aspect_ratios(self.pictures(split)), batch_size)

    def batches(
        self, split: Split, *, seed: int, epoch: int, batch_size: int, options: Hashable = PLAIN
    ) -> Iterator[DetectionBatch]:
        assert isinstance(options, DetectionOptions), options
        return training_batches(
            self.pictures(split),
            self._loader,
            options.augment,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            device=self.device,
            ahead=self._ahead,
        )

    def loss(self, model: nn.Module, batch: Batch, *, options: Hashable = PLAIN) -> Tensor:
        """The sum of the network's losses, weighted as the network gives them."""
        batch = cast(DetectionBatch, batch)
        losses: dict[str, Tensor] = model(list(batch.images), list(batch.targets))
        return torch.stack([each.float() for each in losses.values()]).sum()

    @property
    def evaluation_batch(self) -> int:
        return EVALUATION_BATCH["cuda" if is_cuda(self.device) else "cpu"]

    def evaluate(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> float:
        """The metric (see metrics.py). Leaves the model in evaluation mode."""
        return self.measure(model, split, batch_size=batch_size, autocast=autocast)[self.metric.name]

    def measure(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> Mapping[str, float]:
        """All metrics of metrics.py: one evaluation gives them all.

        NaN if a weight or a detection is not finite: detectors drop what is not finite without an error.
        """
        found = self.detect(model, split, batch_size=batch_size, autocast=autocast)
        weights = (weight for weight in model.state_dict().values() if weight.is_floating_point())
        if not all(each.finite for each in found) or not all(bool(weight.isfinite().all()) for weight in weights):
            return dict.fromkeys(METRICS, math.nan)
        precision = precisions(found, [each.objects for each in self.pictures(split)])
        return {name: precision.value(name) for name in METRICS}

    def detect(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> list[Detections]:
        """What the network finds in each image of a split, in their order, in pixels of the stored images."""
        return detect(
            model,
            self.pictures(split),
            self._loader,
            batch_size=batch_size or self.evaluation_batch,
            device=self.device,
            autocast=autocast or nullcontext,
            ahead=self._ahead,
        )

    @property
    def _ahead(self) -> int:
        return PREPARED if is_cuda(self.device) else 0


def _splits(source: Source, validation: float, seed: int) -> dict[str, Sequence[Picture]]:
    train = _not_empty(source.train, "train")
    if source.validation is None:
        held_out, train = hold_out(train, validation, seed)
    else:
        held_out = _not_empty(source.validation, "validation")
    generator = generator_of(derive_seed("probe", seed))
    probe = np.sort(generator.permutation(len(train))[: len(held_out)])
    return {
        "train": train.pictures,
        "validation": held_out.pictures,
        "train+validation": [*train.pictures, *held_out.pictures],
        "probe": [train.pictures[place] for place in probe.tolist()],
    }


def _not_empty(part: Part, split: str) -> Part:
    if not any(len(each.objects) for each in part.pictures):
        raise DataError(f"data: the {split} split has no object of the chosen classes")
    return part
