"""Image classification: uint8 images stay on the device, which normalises and augments them batch by batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.augment import make_augmentations
from ralr_tune.kinds.classification.batching import batch_borders, draw_epoch, mean_and_std
from ralr_tune.kinds.classification.crops import centre_crop
from ralr_tune.kinds.classification.inputs import Inputs, grey_values
from ralr_tune.kinds.classification.inventory import check_unchanged
from ralr_tune.kinds.classification.metrics import METRICS
from ralr_tune.kinds.classification.mixing import Mixing
from ralr_tune.kinds.classification.options import ClassificationOptions
from ralr_tune.kinds.classification.pool import Pool, check_not_empty, make_pool, pool_and_rows
from ralr_tune.kinds.classification.samples import Source
from ralr_tune.kinds.classification.scores import check_classes, make_score, metrics_for
from ralr_tune.kinds.classification.section import MIXINGS
from ralr_tune.kinds.classification.transform import Augmentation
from ralr_tune.machine.sharing import is_cuda
from ralr_tune.metric import Metric
from ralr_tune.models import heads
from ralr_tune.models.contract import check_fit
from ralr_tune.records import Inventory
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import Autocast, Batch, Capabilities, Split
from ralr_tune.tasks.tensors import TensorBatch
from ralr_tune.training.groups import WeightGroup

EVALUATION_PIXELS = {"cpu": 2**19, "cuda": 2**22}
"""Pixels of one evaluation batch by type of device: 512 images of 32x32 on a CPU, 4,096 on a GPU. On a CPU larger ones
were no faster (measured). On a GPU, Python takes longer to launch the kernels of a small batch than they run."""

MIN_EVALUATION_BATCH = 64
"""Images of one evaluation batch, whatever their size: a GPU needs several to be busy."""


AUGMENTED_PIXELS = {"cpu": 2**17, "cuda": 2**23}
"""Pixels that are augmented at once if batches have fewer, by type of device: 2,048 images of 8x8 on a CPU, 8,192 of
32x32 on a GPU, which take 100 MB as float32."""


WHOLE_IMAGES = Inputs()
"""At their size, normalised by the training data."""

PLAIN = ClassificationOptions()
"""No augmentation, no label smoothing."""


@dataclass(frozen=True)
class ImageBatch(TensorBatch):
    """Normalised images (N, C, H, W) float32 and their labels, on the task's device."""

    images: Tensor
    labels: Tensor
    """(N,) int64; for mixed images shares, float32 (N, classes), each row with sum 1."""


_Draws = Sequence[tuple[Augmentation, Tensor]]
_MixDraws = Sequence[tuple[Mixing, Tensor]]


class ClassificationTask:
    """The TorchTask of labelled images (see tasks.base).

    `validation`: share of the training data that is held out, stratified and drawn from `seed`; if the source has
    validation data of its own, those are used instead. Raises DataError if a split would be empty.
    """

    capabilities = Capabilities(static_steps=True, static_shapes=True, fusable=True)

    def __init__(
        self,
        source: Source,
        *,
        build: Callable[[int, int, int], nn.Module],
        validation: float,
        seed: int,
        device: str,
        identity: str,
        decoded: Path | None = None,
        origin: object = None,
        metric: Metric = METRICS["accuracy"],
        inputs: Inputs = WHOLE_IMAGES,
    ) -> None:
        """`decoded`: folder of decoded images that processes share (see decoded.py). `origin`: describes where the data
        were read from; tasks with equal origins can share data.

        `build`: builds the network from (classes, channels, size), with weights from torch's global generator."""
        check_classes(metric.name, len(source.classes))
        self.device = device
        self.metric = metric
        self.identity = identity
        self.origin = origin
        self.classes = source.classes
        self._read_test, self._decoded = source.test, decoded  # not the source itself: it may hold the training images
        self._build = build
        self._pool, self._rows = pool_and_rows(source, validation, seed, device, decoded)
        self._data_mean, self._data_std = mean_and_std(self._pool.images[self._rows["train"]], device)
        self.input_shape: tuple[int, ...]
        self._set_inputs(inputs)
        self._model_checked = False
        self.inventory: Inventory | None = None
        """What the data hold, if `load` was given a folder that remembers it."""

    def with_network(
        self, build: Callable[[int, int, int], nn.Module], identity: str, inputs: Inputs
    ) -> ClassificationTask:
        """A task with another network that shares the data of this one."""
        other = copy.copy(self)
        other._build, other.identity, other._model_checked = build, identity, False
        other._set_inputs(inputs)
        return other

    def _set_inputs(self, inputs: Inputs) -> None:
        self._inputs, decoded = inputs, tuple(self._pool.images.shape[1:])
        self.input_shape, self._evaluation_shape = inputs.shapes(decoded)
        self._mean, self._std = self._data_mean, self._data_std
        if inputs.normalisation is not None:
            self._mean, self._std = grey_values(inputs.normalisation, decoded[0], self.device)

    def build_model(self, seed: int) -> nn.Module:
        channels, height, width = self.input_shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("init", seed))
            model = self._build(len(self.classes), channels, min(height, width))
        if not self._model_checked:  # all trials share the network's shape: one check is enough
            for shape in {self.input_shape, self._evaluation_shape}:
                check_fit(model, shape, len(self.classes))
            self._model_checked = True
        return model

    def weight_groups(self, model: nn.Module, options: Hashable) -> Sequence[WeightGroup]:
        """Trunk and head, if they train differently (see training.groups)."""
        factor, frozen = _checked_options(options).head_factor, _checked_options(options).freeze_trunk
        if factor == 1 and frozen == 0:
            return [WeightGroup(tuple(model.parameters()))]
        trunk, head = heads.trunk_and_head(model, len(self.classes))
        return [WeightGroup(tuple(trunk), frozen_epochs=frozen), WeightGroup(tuple(head), factor)]

    def size(self, split: Split) -> int:
        return len(self._part(split)[1])

    def steps(self, split: Split, batch_size: int, epoch: int = 0, *, seed: int = 0) -> int:
        """The same for every epoch and seed."""
        return len(batch_borders(self.size(split), batch_size)) - 1

    def batches(
        self, split: Split, *, seed: int, epoch: int, batch_size: int, options: Hashable = PLAIN
    ) -> Iterator[ImageBatch]:
        drawn = self._batches(split, [(seed, epoch)], batch_size, _checked_options(options))
        return (ImageBatch(batch.images[:, 0], batch.labels[:, 0]) for batch in drawn)

    def fused_batches(
        self, split: Split, *, slot_epochs: Sequence[tuple[int, int]], batch_size: int, options: Hashable = PLAIN
    ) -> Iterator[ImageBatch]:
        drawn = self._batches(split, slot_epochs, batch_size, _checked_options(options))
        return (ImageBatch(batch.images.flatten(1, 2), batch.labels) for batch in drawn)

    def fused_losses(self, outputs: Tensor, batch: Batch, *, options: Hashable = PLAIN) -> Tensor:
        labels, smoothing = cast(ImageBatch, batch).labels.flatten(0, 1), _checked_options(options).label_smoothing
        each = F.cross_entropy(outputs.float().flatten(0, 1), labels, reduction="none", label_smoothing=smoothing)
        return each.view(outputs.shape[:2]).mean(0)

    def loss(self, model: nn.Module, batch: Batch, *, options: Hashable = PLAIN) -> Tensor:
        batch, smoothing = cast(ImageBatch, batch), _checked_options(options).label_smoothing
        return F.cross_entropy(model(batch.images).float(), batch.labels, label_smoothing=smoothing)

    @property
    def evaluation_batch(self) -> int:
        _, height, width = self._evaluation_shape
        return max(MIN_EVALUATION_BATCH, EVALUATION_PIXELS[self._device_kind] // (height * width))

    def evaluate(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> float:
        """The metric (see metrics.py) of one network. Leaves the model in evaluation mode."""
        return self._measured(model, [self.metric.name], split, batch_size, autocast)[self.metric.name]

    def measure(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> Mapping[str, float]:
        """As `evaluate`, every metric of metrics.py that can differ between networks, by name."""
        return self._measured(model, metrics_for(len(self.classes)), split, batch_size, autocast)

    @torch.no_grad()
    def _measured(
        self, model: nn.Module, names: Sequence[str], split: Split, batch_size: int | None, autocast: Autocast | None
    ) -> dict[str, float]:
        model.eval()
        batch_size = batch_size or self.evaluation_batch
        found = self._evaluated(model, names, split, batch_size, 1, autocast or nullcontext)
        return {name: values[0] for name, values in found.items()}

    @torch.no_grad()
    def fused_evaluate(
        self, network: Callable[[Tensor], Tensor], split: Split, *, slots: int, autocast: Autocast
    ) -> list[float]:
        batch_size = max(MIN_EVALUATION_BATCH, self.evaluation_batch // slots)
        name = self.metric.name
        return self._evaluated(network, [name], split, batch_size, slots, autocast)[name]

    def _evaluated(
        self,
        network: Callable[[Tensor], Tensor],
        names: Sequence[str],
        split: Split,
        batch_size: int,
        slots: int,
        autocast: Autocast,
    ) -> dict[str, list[float]]:
        """By metric the value of each slot, NaN if one of its outputs is not finite. Copied from the device at the
        end."""
        pool, rows = self._part(split)
        scores = {name: make_score(name, len(self.classes), slots, self.device) for name in names}
        finite = torch.ones(slots, dtype=torch.bool, device=self.device)
        for some in torch.split(rows, batch_size):
            batch = self._batch(pool, some, shape=self._evaluation_shape)
            with autocast():
                outputs = network(_repeated_channels(batch.images, slots)).view(len(some), slots, -1)
            for score in scores.values():
                score.add(outputs, batch.labels)
            finite &= outputs.isfinite().all(2).all(0)
        return {name: torch.where(finite, score.values(), math.nan).tolist() for name, score in scores.items()}

    def _batches(
        self, split: Split, slot_epochs: Sequence[tuple[int, int]], batch_size: int, options: ClassificationOptions
    ) -> Iterator[ImageBatch]:
        """Batches of K slots, each a (seed, epoch): images (N, K, C, H, W), labels (N, K) or (N, K, classes)."""
        pool, rows = self._part(split)
        orders, changes, mixes = zip(*(self._draw_epoch(rows, *each, options) for each in slot_epochs), strict=True)
        order = torch.stack(orders, dim=1)
        merged = [
            (drawn[0][0], torch.stack([draws for _, draws in drawn], dim=1)) for drawn in zip(*changes, strict=True)
        ]
        return self._mixed(self._augmented(pool, order, batch_borders(len(rows), batch_size), merged), mixes)

    def _augmented(
        self, pool: Pool, order: Tensor, cuts: list[int], changes: _Draws
    ) -> Iterator[tuple[int, ImageBatch]]:
        """Normalised and augmented batches, each with its start position in `order`, (samples, K).

        Batches of small images are made several at a time: otherwise the overhead of a dozen operations dominates.
        """
        (height, width), slots = pool.images.shape[2:], order.shape[1]
        for some in _blocks(cuts, AUGMENTED_PIXELS[self._device_kind] // (height * width * slots)):
            begin, end = some[0], some[-1]
            draws = [(augmentation, drawn[begin:end].flatten(0, 1)) for augmentation, drawn in changes]
            block = self._batch(pool, order[begin:end].flatten(), draws)
            images, labels = (part.view(-1, slots, *part.shape[1:]) for part in (block.images, block.labels))
            for first, last in pairwise(some):
                yield first, ImageBatch(images[first - begin : last - begin], labels[first - begin : last - begin])

    @staticmethod
    def _mixed(batches: Iterator[tuple[int, ImageBatch]], mixes: Sequence[_MixDraws]) -> Iterator[ImageBatch]:
        """The batches with the images of each slot mixed, batch by batch."""
        for first, batch in batches:
            if not any(mixes):
                yield batch
                continue
            slots = [(batch.images[:, slot], batch.labels[:, slot]) for slot in range(len(mixes))]
            for slot, drawn in enumerate(mixes):
                for mixing, draws in drawn:
                    slots[slot] = mixing.apply(*slots[slot], draws[first : first + len(batch)])
            images, labels = zip(*slots, strict=True)
            yield ImageBatch(torch.stack(images, dim=1), torch.stack(labels, dim=1))

    def _batch(
        self, pool: Pool, rows: Tensor, changes: _Draws = (), shape: tuple[int, ...] | None = None
    ) -> ImageBatch:
        """`shape`: cut from the centre; None: `changes` cut what is needed."""
        images = self._to_device(pool.images.index_select(0, rows))  # ten times faster than [rows]
        for augmentation, draws in changes:
            images = augmentation.apply(images, draws)
        if shape is not None and images.shape[1:] != shape:
            images = centre_crop(images, *shape[1:])
        labels = self._to_device(pool.labels[rows])
        return ImageBatch((images - self._mean) / self._std, labels)

    def _draw_epoch(
        self, rows: Tensor, seed: int, epoch: int, options: ClassificationOptions
    ) -> tuple[Tensor, _Draws, _MixDraws]:
        """Everything random in an epoch: the order, and draws (N, k) in that order."""
        augmentations, mixings = self._augmentations(options), self._mixings(options)
        order, draws = draw_epoch(len(rows), [*augmentations, *mixings], seed=seed, epoch=epoch)
        first = len(augmentations)
        changes = [
            (each, drawn if each.draws_on_host else drawn.to(self.device))
            for each, drawn in zip(augmentations, draws[:first], strict=True)
        ]
        mixes = [(each, drawn.to(self.device)) for each, drawn in zip(mixings, draws[first:], strict=True)]
        return rows[order.to(rows.device)], changes, mixes

    def _to_device(self, some: Tensor) -> Tensor:
        """Copies to the task's device; from pinned memory, a GPU copies while the CPU gathers the next batch."""
        if some.device.type == "cpu" and is_cuda(self.device):
            some = some.pin_memory()
        return some.to(self.device, non_blocking=True)

    @property
    def _device_kind(self) -> str:
        """cuda or cpu, a key of this module's constants."""
        return "cuda" if is_cuda(self.device) else "cpu"

    def _augmentations(self, options: ClassificationOptions) -> list[Augmentation]:
        height, width = self._pool.images.shape[2:]
        fill, train_size = self._data_mean.round().to(torch.uint8), self._inputs.train_size
        return make_augmentations(options, height=height, width=width, fill=fill, train_size=train_size)

    def _mixings(self, options: ClassificationOptions) -> list[Mixing]:
        """One `Mixing` for all mixing names, or none. It comes last, since it mixes augmented images."""
        _, height, width = self.input_shape
        asked = [name for name in options.augment if name in MIXINGS]
        if not asked:
            return []
        return [Mixing(asked, height, width, len(self.classes), options.mixup_alpha, options.cutmix_alpha)]

    def _part(self, split: Split) -> tuple[Pool, Tensor]:
        if split == "test":
            return self._test, torch.arange(len(self._test.labels), device=self._test.images.device)
        return self._pool, self._rows[split]

    @cached_property
    def _test(self) -> Pool:
        samples = self._read_test()
        check_not_empty(samples, "test")
        pool = make_pool([samples], self.device, self._decoded)
        if self.inventory is not None:
            check_unchanged("test", samples, self.inventory)
        shape, expected = tuple(pool.images.shape[1:]), tuple(self._pool.images.shape[1:])
        if shape != expected:
            raise DataError(f"test images have shape {shape}, training images {expected} (C, H, W)")
        return pool


def _checked_options(options: Hashable) -> ClassificationOptions:
    assert isinstance(options, ClassificationOptions), options
    return options


def _repeated_channels(images: Tensor, slots: int) -> Tensor:
    """(N, C, H, W) to (N, slots * C, H, W): the same images for every slot."""
    return images if slots == 1 else images.repeat(1, slots, 1, 1)


def _blocks(cuts: list[int], samples: int) -> Iterator[list[int]]:
    """Splits the cuts into runs that share their end point. A run has at most `samples` samples, or is one batch."""
    first = 0
    for place in range(2, len(cuts) + 1):
        if place == len(cuts) or cuts[place] - cuts[first] > samples:
            yield cuts[first:place]
            first = place - 1
