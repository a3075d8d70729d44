"""How decoded images become inputs of a network: sizes in training and evaluation, and normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ralr_tune.errors import UsageError

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, as shares of white."""

WHITE = 255.0


@dataclass(frozen=True)
class Inputs:
    """What a network expects; None: images as they are decoded, normalised by the training data."""

    train_size: int | None = None
    test_size: int | None = None
    normalisation: Normalisation | None = None

    def shapes(self, decoded: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(C, H, W) in training and in evaluation, for decoded images (C, H, W). Raises UsageError if a size is too
        large."""
        return _shape("train_size", self.train_size, decoded), _shape("test_size", self.test_size, decoded)


def _shape(key: str, size: int | None, decoded: tuple[int, ...]) -> tuple[int, ...]:
    if size is None:
        return decoded
    if size > min(decoded[1:]):
        raise UsageError(
            f"task.{key} = {size}: larger than the images, {decoded[2]}x{decoded[1]} pixels; allowed: at most "
            f"{min(decoded[1:])}, or a larger task.data.size"
        )
    return (decoded[0], size, size)


def grey_values(normalisation: Normalisation, channels: int, device: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C, 1, 1) in grey values 0 .. 255; for another number of channels than that of the
    weights, the mean over those (our choice)."""
    found = []
    for values in normalisation:
        fitting = values if len(values) == channels else (sum(values) / len(values),) * channels
        found.append(WHITE * torch.tensor(fitting, device=device, dtype=torch.float32)[:, None, None])
    return found[0], found[1]
