"""mixup and cutmix: images and labels of a batch mixed in pairs.

    mixup    k * x_i + (1 - k) * x_j, and the labels likewise            Zhang et al. 2018, arXiv 1710.09412, section 2
    cutmix   x_i with a box of x_j in it, the labels by its area         Yun et al. 2019, arXiv 1905.04899, section 3.1

k is from Beta(alpha, alpha), by default uniform in (0, 1): alpha = 1 is what both papers use for CIFAR (mixup uses 0.2
for ImageNet). cutmix mixes half of the samples, as its authors do for CIFAR. If both are chosen, each sample gets one
of the two: half of them cutmix, the rest mixup, so that none is mixed twice.

Each sample has its own draws (our choice: the code of both papers and torchvision's MixUp and CutMix draw once per
batch). So the mixing strength does not jump from step to step, draws do not depend on the batch size, and the epoch's
generator makes all draws of an epoch at once; torchvision's classes do not accept a generator. The partner of a sample
is the one before it in the batch: since the order is random, that is a random other sample, never the sample itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ralr_tune.kinds.classification.beta import beta_quantile

CUTMIX_SHARE = 0.5
"""Share of the samples."""


@dataclass(frozen=True)
class Mixing:
    """mixup, cutmix or both, for images of one size."""

    names: Sequence[str]
    height: int
    width: int
    classes: int
    mixup_alpha: float = 1.0
    cutmix_alpha: float = 1.0

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Float32 (N, 5), one row for each of `count` samples.

        Columns: first row, first column, last row, last column (these two excluded) of the box that shows the partner,
        and the weight of the image itself outside of that box.
        """
        own = torch.rand(count, generator=generator)
        centres = [torch.randint(side, (count,), generator=generator) for side in (self.height, self.width)]
        cut = torch.rand(count, generator=generator) < (CUTMIX_SHARE if "cutmix" in self.names else 0.0)
        own = torch.where(cut, beta_quantile(own, self.cutmix_alpha), beta_quantile(own, self.mixup_alpha))
        edge = (1 - own).sqrt() * cut  # of a box whose area is the partner's share
        ends = [self._ends(*pair, edge) for pair in zip(centres, (self.height, self.width), strict=True)]
        (top, bottom), (left, right) = ends
        blended = ~cut if "mixup" in self.names else torch.zeros_like(cut)
        return torch.stack([top, left, bottom, right, torch.where(blended, own, 1.0)], dim=1)

    def apply(self, images: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes a whole batch: images (N, C, H, W) float, labels (N,) int64 and draws (N, 5) on one device.

        Returns images of the same shape and label shares, float32 (N, classes), each row with sum 1.
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
        """Start and end of boxes along one side of the image, clipped to the image."""
        length = (side * edge).long()
        first = centre - length // 2
        return first.clamp(min=0), (first + length).clamp(max=side)


def _inside(side: int, first: Tensor, last: Tensor) -> Tensor:
    """(N, side) bool: whether a row or column is inside the box."""
    places = torch.arange(side, device=first.device)
    return (places >= first[:, None]) & (places < last[:, None])
