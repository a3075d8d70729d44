"""A toy detection task: steps vary in shape and number, the loss is a mean over boxes, the network draws numbers."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ralr_tune.metric import Metric
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import Autocast, Batch, Capabilities, Split, tensor_signature

COUNTS = [3, 1, 0, 4, 2, 5, 1, 1, 6, 2, 3, 1]
"""Boxes of each sample; the third has none."""


@dataclass(frozen=True)
class BoxBatch:
    """Samples with boxes of four numbers each, (boxes, 4), sample after sample."""

    boxes: Tensor
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def weight(self) -> float:
        return max(1, sum(self.counts))

    @property
    def signature(self) -> Hashable:
        return tensor_signature(self.boxes)

    def split(self, parts: int) -> list[BoxBatch]:
        samples = self.boxes.split(list(self.counts))
        sizes = [len(self) // parts + (part < len(self) % parts) for part in range(parts)]
        starts = [sum(sizes[:part]) for part in range(parts)]
        return [_batch(samples[start : start + size]) for start, size in zip(starts, sizes, strict=True)]

    def clone(self) -> BoxBatch:
        return BoxBatch(self.boxes.clone(), self.counts)

    def take(self, other: BoxBatch) -> None:
        self.boxes.copy_(other.boxes)


def _batch(samples: Sequence[Tensor]) -> BoxBatch:
    return BoxBatch(torch.cat(list(samples)), tuple(len(each) for each in samples))


class Detector(nn.Module):
    """Consists of torch and torchvision modules; called with targets; in training it draws from Python's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = GeneralizedRCNNTransform(8, 16, [0.0], [1.0])
        self.head = nn.Linear(4, 1)

    def forward(self, boxes: Tensor, targets: Tensor | None = None) -> Tensor:
        outputs: Tensor = self.head(boxes)[:, 0]
        if targets is None:
            return outputs
        return (outputs + (0.01 * random.random() if self.training else 0.0) - targets) ** 2


class BoxTask:
    """A TorchTask that declares only that the gap is not measured."""

    metric = Metric("error", direction="minimize", worst=1e9)
    capabilities = Capabilities(gap_split=None)
    identity = "boxes"
    device = "cpu"
    input_shape: tuple[int, ...] = ()
    evaluation_batch = 4

    def __init__(self) -> None:
        generator = Generator().manual_seed(0)
        self.samples = [torch.rand(count, 4, generator=generator) for count in COUNTS]
        self.losses: list[tuple[float, float]] = []
        """Mean loss and weight of every training batch."""
        self.signatures: set[Hashable] = set()

    def build_model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Detector()

    def size(self, split: Split) -> int:
        return len(self.samples)

    def steps(self, split: Split, batch_size: int, epoch: int = 0, *, seed: int = 0) -> int:
        return len(self._cuts(batch_size, epoch, seed))

    def batches(self, split: Split, *, seed: int, epoch: int, batch_size: int, options: Hashable) -> Iterator[BoxBatch]:
        """`batch_size` counts boxes, not samples."""
        for rows in self._cuts(batch_size, epoch, seed):
            yield _batch([self.samples[row] for row in rows])

    def loss(self, model: nn.Module, batch: Batch, *, options: Hashable) -> Tensor:
        batch = cast(BoxBatch, batch)
        each: Tensor = model(batch.boxes, batch.boxes.sum(1))
        loss = each.sum() / batch.weight
        self.losses.append((loss.item(), batch.weight))
        self.signatures.add(batch.signature)
        return loss

    def evaluate(
        self, model: nn.Module, split: Split, *, batch_size: int | None = None, autocast: Autocast | None = None
    ) -> float:
        model.eval()
        with torch.no_grad():
            boxes = torch.cat(self.samples)
            return float((model(boxes) - boxes.sum(1)).square().mean())

    def _cuts(self, batch_size: int, epoch: int, seed: int) -> list[list[int]]:
        """Samples in the order of (seed, epoch), in batches of at most `batch_size` boxes or one sample."""
        generator = Generator().manual_seed(derive_seed("order", seed, epoch))
        cuts: list[list[int]] = [[]]
        for row in torch.randperm(len(COUNTS), generator=generator).tolist():
            if cuts[-1] and sum(COUNTS[each] for each in [*cuts[-1], row]) > batch_size:
                cuts.append([])
            cuts[-1].append(row)
        return cuts
