"""What the batches of an epoch are made from: the borders of batches, and all draws.

The task and exported scripts share this source, so that both draw the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from ralr_tune.seeds import derive_seed


class RandomTransform(Protocol):
    """An augmentation or a mixing."""

    def draw(self, count: int, generator: Generator) -> Tensor:
        """One row for each of `count` samples."""


def mean_and_std(images: Tensor, device: str) -> tuple[Tensor, Tensor]:
    """Per channel (C, 1, 1), in grey values. Exact and equal on every device, since pixels are counted in integers."""
    counts = [torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]
    values = np.arange(256)
    shares = [count.cpu().numpy() / count.sum().item() for count in counts]
    means = [float(share @ values) for share in shares]
    stds = [float(share @ (values - mean) ** 2) ** 0.5 for share, mean in zip(shares, means, strict=True)]

    def per_channel(numbers: list[float]) -> Tensor:
        return torch.tensor(numbers, device=device, dtype=torch.float32)[:, None, None]

    return per_channel(means), per_channel([max(std, 1.0) for std in stds])  # a constant channel has std 0


def batch_borders(count: int, batch_size: int) -> list[int]:
    """Start and end positions of batches. Every sample is used; a last batch of one sample joins the previous one.

    Batch normalisation cannot estimate a variance from one sample (torch raises if its feature maps are 1x1), and the
    gradient of one sample is mostly noise.
    """
    borders = [*range(0, count, batch_size), count]
    if len(borders) > 2 and batch_size > 1 and borders[-1] - borders[-2] == 1:
        del borders[-2]
    return borders


def draw_epoch(count: int, drawn: Sequence[RandomTransform], *, seed: int, epoch: int) -> tuple[Tensor, list[Tensor]]:
    """Everything random in an epoch of `count` samples: their order, (count,), and the draws of each of `drawn`.

    The first row of a draw belongs to the first sample in that order. All tensors are on the CPU.
    """
    order = torch.randperm(count, generator=_generator("order", seed, epoch))
    generator = _generator("augment", seed, epoch)
    return order, [each.draw(count, generator) for each in drawn]


def _generator(purpose: str, seed: int, epoch: int) -> Generator:
    """On the CPU, so that every device gets the same draws."""
    return Generator().manual_seed(derive_seed(purpose, seed, epoch))
