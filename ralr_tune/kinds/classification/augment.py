"""Augmentation of a whole batch on its device, with separate random draws for each sample.

torchvision's transforms draw one crop and one flip for a whole batch tensor. These draw one for each sample and use
index arithmetic instead of a loop over samples. Drawing and applying are separate: one generator on the CPU makes all
draws of an epoch at once, so that they are equal on every device and only a few integers are transferred.

The order of composition: augmentations of single images in the order of the study file's list, on uint8 images; then
normalisation; then the one `mixing` of the batch, wherever it is in the list; then label smoothing, in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification import section
from ralr_tune.kinds.classification.crops import CentreCrop, RandomWindow, ResizedCrop, SizingCrop
from ralr_tune.kinds.classification.erasing import RandomErasing
from ralr_tune.kinds.classification.operations import RandAugment, TrivialAugment
from ralr_tune.kinds.classification.options import ClassificationOptions
from ralr_tune.kinds.classification.transform import Augmentation

CROP_PADDING = 1 / 8
"""Padding on each side as a share of the image height: 4 of 32 pixels, as in He et al. 2016, section 4.2; 1 of 8."""


class Crop(Augmentation):
    """Pads with zeros on each side and crops the original size at random (He et al. 2016, section 4.2)."""

    @property
    def padding(self) -> int:
        return max(1, round(self.height * CROP_PADDING))

    def draw(self, count: int, generator: Generator) -> Tensor:
        """(N, 2): row and column offset of the window, 0 to twice the padding."""
        return torch.randint(0, 2 * self.padding + 1, (count, 2), generator=generator)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        padded = F.pad(images, (self.padding,) * 4)
        windows = padded.unfold(2, self.height, 1).unfold(3, self.width, 1)  # a view: (N, C, 2p + 1, 2p + 1, H, W)
        samples = torch.arange(len(images), device=images.device)
        return windows[samples, :, draws[:, 0], draws[:, 1]]


class Flip(Augmentation):
    """Flips horizontally with probability 1/2."""

    def draw(self, count: int, generator: Generator) -> Tensor:
        """(N, 1): 1 to flip."""
        return torch.randint(0, 2, (count, 1), generator=generator)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        samples = torch.arange(len(images), device=images.device) + len(images) * draws[:, 0]
        return torch.cat([images, images.flip(-1)]).index_select(0, samples)  # at most half the time of `where`


@dataclass(frozen=True)
class Cutout(Augmentation):
    """Fills a square with the mean colour. Its centre is anywhere in the image; the part beyond an edge is cut off.

    DeVries and Taylor 2017, arXiv 1708.04552, section 3.2.
    """

    size: float
    """Side of the square as a share of the image height."""

    @property
    def side(self) -> int:
        return max(1, round(self.height * self.size))

    def draw(self, count: int, generator: Generator) -> Tensor:
        """(N, 2): row and column of the centre."""
        rows = torch.randint(0, self.height, (count, 1), generator=generator)
        columns = torch.randint(0, self.width, (count, 1), generator=generator)
        return torch.cat([rows, columns], dim=1)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        rows = self._inside(self.height, draws[:, :1])
        columns = self._inside(self.width, draws[:, 1:])
        hole = rows[:, None, :, None] & columns[:, None, None, :]
        return torch.where(hole, self.fill.to(images.device), images)

    def _inside(self, length: int, centre: Tensor) -> Tensor:
        """(N, length) bool: whether a row or column is inside the square."""
        first = centre - self.side // 2
        places = torch.arange(length, device=centre.device)
        return (places >= first) & (places < first + self.side)


AUGMENTATIONS: Mapping[str, type[Augmentation]] = {
    "resized_crop": ResizedCrop,
    "crop": Crop,
    "flip": Flip,
    "cutout": Cutout,
    "random_erasing": RandomErasing,
    "rand_augment": RandAugment,
    "trivial_augment": TrivialAugment,
}
"""Augmentations of single images by name."""


def make_augmentations(
    options: ClassificationOptions, *, height: int, width: int, fill: Tensor, train_size: int | None = None
) -> list[Augmentation]:
    """The augmentations of single images (C, height, width) in `options`, in their order.

    With another `train_size`, the crop to this size comes first (resized_crop if it is in the list, otherwise a random
    window for crop, otherwise the centre), and the others work on the result. Raises UsageError on an unknown name.
    """
    if unknown := [name for name in options.augment if name not in section.AUGMENTATIONS]:
        raise UsageError(f"training.augment: {unknown[0]!r} is unknown; allowed: {', '.join(section.AUGMENTATIONS)}")
    names, first = [name for name in options.augment if name in AUGMENTATIONS], []
    if train_size is not None and (train_size, train_size) != (height, width):
        crop, names = sizing_crop(names)
        first = [crop(train_size, train_size, fill, (height, width))]
        height = width = train_size
    return [*first, *(AUGMENTATIONS[name](height, width, fill, **options.parameters(name)) for name in names)]


def sizing_crop(names: Sequence[str]) -> tuple[type[SizingCrop], list[str]]:
    """The crop that changes the size of images, and the names of the augmentations that follow it."""
    chosen = next((name for name in ("resized_crop", "crop") if name in names), None)
    return _SIZING[chosen], [name for name in names if name != chosen]


_SIZING: Mapping[str | None, type[SizingCrop]] = {
    "resized_crop": ResizedCrop,
    "crop": RandomWindow,
    None: CentreCrop,
}
