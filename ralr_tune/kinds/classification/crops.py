"""Crops of a decoded image to the size that the network sees: at random in training, from the centre in evaluation.

Training and evaluation may differ in size: objects look larger in random resized crops than in centre crops, and a
larger evaluation size makes up for it (Touvron et al. 2019, arXiv 1906.06423).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ralr_tune.kinds.classification.transform import Augmentation

AREA = (0.08, 1.0)
"""Share of the image that a resized crop shows, and ..."""
ASPECT = (3 / 4, 4 / 3)
"""... its width by its height: the values of Szegedy et al. 2015 (arXiv 1409.4842, section 6), and of torchvision."""
ATTEMPTS = 10
"""Draws of a box until one fits, as in torchvision; then the whole image."""


def centre_crop(images: Tensor, height: int, width: int) -> Tensor:
    """The central part (N, C, height, width) of images that are at least as large."""
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]


@dataclass(frozen=True)
class SizingCrop(Augmentation):
    """A crop of images of another size than the result, which may come first only."""

    source: tuple[int, int] | None = None
    """Height and width of the images; None: those of the result."""

    @property
    def source_size(self) -> tuple[int, int]:
        return self.source or (self.height, self.width)


class CentreCrop(SizingCrop):
    """The centre, without a draw."""

    def draw(self, count: int, generator: Generator) -> Tensor:
        """(N, 0)."""
        return torch.empty(count, 0, dtype=torch.int64)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        return centre_crop(images, self.height, self.width)


class RandomWindow(SizingCrop):
    """A window of the result's size anywhere in the image, without padding: `crop` of a larger image."""

    def draw(self, count: int, generator: Generator) -> Tensor:
        """(N, 2): first row and column."""
        ends = [large - small + 1 for large, small in zip(self.source_size, (self.height, self.width), strict=True)]
        return torch.stack([torch.randint(0, end, (count,), generator=generator) for end in ends], dim=1)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        windows = images.unfold(2, self.height, 1).unfold(3, self.width, 1)  # a view: (N, C, rows, columns, H, W)
        samples = torch.arange(len(images), device=images.device)
        return windows[samples, :, draws[:, 0], draws[:, 1]]


class ResizedCrop(SizingCrop):
    """A box of random area and aspect, resized to the result (Szegedy et al. 2015, section 6).

    Bilinear with antialiasing, like torchvision's RandomResizedCrop, for the whole batch at once: a resize is linear in
    rows and in columns, so each image is multiplied by one matrix from either side.
    """

    def draw(self, count: int, generator: Generator) -> Tensor:
        """(N, 4): first row, first column, height and width of the box."""
        height, width = self.source_size
        low, high = AREA
        areas = height * width * (low + (high - low) * torch.rand(count, ATTEMPTS, generator=generator))
        first, last = map(math.log, ASPECT)
        aspects = (first + (last - first) * torch.rand(count, ATTEMPTS, generator=generator)).exp()
        heights, widths = (areas / aspects).sqrt().round().long(), (areas * aspects).sqrt().round().long()
        fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
        chosen = fits.long().argmax(1, keepdim=True)  # the first that fits
        sides = [
            torch.where(fits.any(1), side.gather(1, chosen)[:, 0], whole)
            for side, whole in ((heights, height), (widths, width))
        ]
        starts = [
            (torch.rand(count, generator=generator) * (whole - side + 1)).long().clamp(max=whole - side)
            for side, whole in zip(sides, (height, width), strict=True)
        ]
        return torch.stack([*starts, *sides], dim=1)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        top, left, height, width = draws.unbind(1)
        rows = _resizing(top, height, images.shape[-2], self.height)
        columns = _resizing(left, width, images.shape[-1], self.width)
        resized = rows[:, None] @ images.float() @ columns[:, None].transpose(-1, -2)
        return resized if images.is_floating_point() else resized.round().clamp(0, 255).to(images.dtype)


def _resizing(first: Tensor, length: Tensor, pixels: int, wanted: int) -> Tensor:
    """The matrices (N, wanted, pixels) that resize pixels [first, first + length) to `wanted`, with (N,) each.

    A triangle around each result's centre, as wide as a result pixel but at least one pixel to either side, cut off at
    the ends of the box; the weights of a result add up to 1.
    """
    scale = (length / wanted)[:, None, None]
    centres = (torch.arange(wanted, device=first.device)[None, :, None] + 0.5) * scale
    places = torch.arange(pixels, device=first.device)[None, None, :] - first[:, None, None] + 0.5
    weights = (1 - ((places - centres) / scale.clamp(min=1)).abs()).clamp(min=0)
    inside = (places > 0) & (places < length[:, None, None])
    weights = weights * inside
    return weights / weights.sum(-1, keepdim=True)
