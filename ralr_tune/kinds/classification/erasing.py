"""Random erasing: a rectangle of each chosen image is overwritten, with noise or with the mean colour."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from ralr_tune.kinds.classification.transform import Augmentation

MIN_ERASED = 0.02
"""Smallest area of a rectangle as a share of the image: s_l in the paper."""

TRIES = 10
"""Rectangles that are drawn for an image until one fits into it; if none does, the image stays as it is. The paper's
algorithm 1 repeats without a limit; torchvision's RandomErasing tries ten times, too."""


@dataclass(frozen=True)
class RandomErasing(Augmentation):
    """Zhong et al. 2017, "Random Erasing Data Augmentation", arXiv 1708.04896, algorithm 1.

    The rectangle lies inside the image. Its aspect ratio is log-uniform, as in torchvision's RandomErasing, so that
    tall and wide ones are equally likely; the paper draws it uniformly.
    """

    probability: float
    """Of erasing, for each image: p in the paper."""
    area: float
    """Largest area of a rectangle as a share of the image: s_h in the paper."""
    aspect: float
    """Smallest ratio of height to width: r_1 in the paper; the largest is its reciprocal."""
    value: Literal["noise", "mean"]
    """Each value uniform from 0 to 255 (RE-R, the best in the paper's table 4), or the mean colour of the training
    images (RE-M)."""

    def draw(self, count: int, generator: Generator) -> Tensor:
        """(N, 5): first row and column, height and width of the rectangle (0: nothing is erased), seed of the noise."""
        chosen = torch.rand(count, generator=generator) < self.probability
        numbers = torch.rand(2, count, TRIES, generator=generator, dtype=torch.float64)
        smallest = min(MIN_ERASED, self.area)
        areas = (smallest + numbers[0] * (self.area - smallest)) * self.height * self.width
        aspects = (math.log(self.aspect) * (1 - 2 * numbers[1])).exp()
        heights = (areas * aspects).sqrt().round().long().clamp(min=1)
        widths = (areas / aspects).sqrt().round().long().clamp(min=1)
        fits = (heights <= self.height) & (widths <= self.width)
        first = fits.int().argmax(1, keepdim=True)
        erased = (chosen & fits.any(1)).long()
        height, width = (sides.gather(1, first)[:, 0] * erased for sides in (heights, widths))
        places = torch.rand(2, count, generator=generator, dtype=torch.float64)
        top = (places[0] * (self.height - height + 1)).long()
        left = (places[1] * (self.width - width + 1)).long()
        seeds = torch.randint(0, 2**31, (count,), generator=generator)
        return torch.stack([top, left, height, width, seeds], dim=1)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        top, left, height, width, seeds = draws.unbind(1)
        rows, columns = _covered(self.height, top, height), _covered(self.width, left, width)
        hole = rows[:, None, :, None] & columns[:, None, None, :]
        other = pixel_noise(seeds, images.shape[1:]) if self.value == "noise" else self.fill.to(images.device)
        return torch.where(hole, other.to(images.dtype), images)


def _covered(side: int, first: Tensor, length: Tensor) -> Tensor:
    """(N, side) bool: whether a row or column belongs to the rectangle."""
    places = torch.arange(side, device=first.device)
    return (places >= first[:, None]) & (places < (first + length)[:, None])


def pixel_noise(seeds: Tensor, shape: torch.Size) -> Tensor:
    """(N, C, H, W) int64, 0 to 255: a hash of each image's seed, (N,) below 2^31, and the pixel's position.

    Drawn on the CPU, the noise of an epoch would be as large as its images. Integers are equal on every device. The
    hash is two rounds of multiplying and shifting (Mueller's 32-bit integer hash); no product exceeds 63 bits.
    """
    places = torch.arange(shape.numel(), device=seeds.device).view(shape)
    bits = _mixed_bits(seeds)[:, None, None, None] ^ _mixed_bits(places + 1)
    return _mixed_bits(bits) & 255


def _mixed_bits(bits: Tensor) -> Tensor:
    for _ in range(2):
        bits = (bits ^ (bits >> 16)) * 0x45D9F3B & 0xFFFFFFFF
    return bits ^ (bits >> 16)
