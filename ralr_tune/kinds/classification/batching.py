"""What the batches of an epoch are made from: the borders of batches, and all draws.

The task and its scripts share this source, so that they draw the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from ralr_tune.seeds import derive_seed


class Drawn(Protocol):
    """An augmentation or a mixing."""

    def draw(self, count: int, generator: Generator) -> Tensor:
        """One row for each of `count` samples."""


def mean_and_std(images: Tensor, device: str) -> tuple[Tensor, Tensor]:
    """Per channel (C, 1, 1), in grey values, exact: counted in integers, so equal on every device."""
    counts = [torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]
    values = np.arange(256)
    shares = [count.cpu().numpy() / count.sum().item() for count in counts]
    means = [float(share @ values) for share in shares]
    stds = [float(share @ (values - mean) ** 2) ** 0.5 for share, mean in zip(shares, means, strict=True)]

    def per_channel(numbers: list[float]) -> Tensor:
        return torch.tensor(numbers, device=device, dtype=torch.float32)[:, None, None]

    return per_channel(means), per_channel([max(std, 1.0) for std in stds])  # a channel of one value has none


def batch_borders(count: int, batch_size: int) -> list[int]:
    """Where batches begin and end. Every sample is used; a last batch of one sample joins the one before it.

    Batch normalisation has no variance to take of one sample (torch raises where its maps are 1x1), and one sample's
    gradient is noise.
    """
    borders = [*range(0, count, batch_size), count]
    if len(borders) > 2 and batch_size > 1 and borders[-1] - borders[-2] == 1:
        del borders[-2]
    return borders


def draw_epoch(count: int, drawn: Sequence[Drawn], *, seed: int, epoch: int) -> tuple[Tensor, list[Tensor]]:
    """All that is random in an epoch of `count` samples: their order, (count,), and the draws of each of `drawn`.

    The first row of a draw is for the first sample in that order. All are on the CPU.
    """
    order = torch.randperm(count, generator=_generator("order", seed, epoch))
    generator = _generator("augment", seed, epoch)
    return order, [each.draw(count, generator) for each in drawn]


def _generator(purpose: str, seed: int, epoch: int) -> Generator:
    """On the CPU, so that every device gets the same draws."""
    return Generator().manual_seed(derive_seed(purpose, seed, epoch))
