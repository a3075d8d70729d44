"""mixup and cutmix: images and labels of a batch mixed in pairs. Stands alone, since exported scripts carry its source.

    mixup    k * x_i + (1 - k) * x_j, and the labels alike               Zhang et al. 2018, arXiv 1710.09412, section 2
    cutmix   x_i with a box of x_j in it, the labels by its area         Yun et al. 2019, arXiv 1905.04899, section 3.1

k is uniform in (0, 1), which is Beta(1, 1): what both take for CIFAR (mixup takes 0.2 for ImageNet). cutmix mixes half
of the samples, as its authors do for CIFAR. Where both are asked for, each sample gets one of the two: cutmix its half,
mixup the rest, so that none is mixed twice.

Each sample has draws of its own (ours: both papers' code, and torchvision's MixUp and CutMix, draw once for a whole
batch). So the strength of the mixing does not jump from step to step, draws do not depend on the batch size, and all of
an epoch are made at once by the epoch's own generator, which torchvision's cannot be given. The partner is the sample
before it in the batch: since the order of an epoch is random, that is a random other one, and never the sample itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

CUTMIX_SHARE = 0.5
"""Of the samples."""


@dataclass(frozen=True)
class Mixing:
    """mixup, cutmix or both, for images of one size."""

    names: Sequence[str]
    height: int
    width: int
    classes: int

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Float32 (N, 5), one row for each of `count` samples.

        In it: first row, first column, last row, last column (these two excluded) of the box that shows the partner,
        and the image's own share outside of that box.
        """
        own = torch.rand(count, generator=generator)
        centres = [torch.randint(side, (count,), generator=generator) for side in (self.height, self.width)]
        cut = torch.rand(count, generator=generator) < (CUTMIX_SHARE if "cutmix" in self.names else 0.0)
        edge = (1 - own).sqrt() * cut  # of a box with the partner's share of the area
        ends = [self._ends(*pair, edge) for pair in zip(centres, (self.height, self.width), strict=True)]
        (top, bottom), (left, right) = ends
        blended = ~cut if "mixup" in self.names else torch.zeros_like(cut)
        return torch.stack([top, left, bottom, right, torch.where(blended, own, 1.0)], dim=1)

    def apply(self, images: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes a whole batch: images (N, C, H, W) float, labels (N,) int64 and draws (N, 5) on one device.

        Gives images of the same shape and the labels' shares, float32 (N, classes), each row with the sum 1.
        """
        top, left, bottom, right, own = draws.unbind(1)
        rows, columns = _inside(self.height, top, bottom), _inside(self.width, left, right)
        box = rows[:, None, :, None] & columns[:, None, None, :]
        partners = images.roll(1, 0)
        mixed = torch.where(box, partners, partners.lerp(images, own[:, None, None, None]))
        share = own * (1 - (bottom - top) * (right - left) / (self.height * self.width))
        shares = F.one_hot(labels, self.classes).float()
        return mixed, shares.roll(1, 0).lerp(shares, share[:, None])

    @staticmethod
    def _ends(centre: Tensor, side: int, edge: Tensor) -> tuple[Tensor, Tensor]:
        """Where boxes begin and end along one side of the image, which cuts off what lies beyond it."""
        length = (side * edge).long()
        first = centre - length // 2
        return first.clamp(min=0), (first + length).clamp(max=side)


def _inside(side: int, first: Tensor, last: Tensor) -> Tensor:
    """(N, side) bool: whether a row or column is inside the box."""
    places = torch.arange(side, device=first.device)
    return (places >= first[:, None]) & (places < last[:, None])
