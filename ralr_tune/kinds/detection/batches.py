"""Batches of images with boxes: their order and shapes. Tasks and exported scripts share this source."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import tensor_signature

Target = dict[str, Tensor]
"""What torchvision's detectors expect of one image: boxes (n, 4) float32 and labels (n,) int64, from 1."""

RATIOS = 2 ** np.linspace(-1, 1, 7)
"""Borders between groups of aspect ratios, as in torchvision's reference with 3 groups on each side."""


@dataclass(frozen=True)
class DetectionBatch:
    """Images (3, H, W) float32 in [0, 1] and their targets, on the task's device."""

    images: tuple[Tensor, ...]
    targets: tuple[Target, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def weight(self) -> float:
        """Images. RetinaNet's loss is a mean over images; those of the others are divided by numbers that only the
        network knows (matched places, sampled proposals), nearly proportional to images."""
        return len(self)

    @property
    def signature(self) -> Hashable:
        return tensor_signature(*self._tensors())

    def split(self, parts: int) -> list[DetectionBatch]:
        """In order; their lengths differ by at most one."""
        borders = np.linspace(0, len(self), parts + 1).round().astype(int).tolist()
        return [DetectionBatch(self.images[first:last], self.targets[first:last]) for first, last in pairwise(borders)]

    def clone(self) -> DetectionBatch:
        targets = tuple({name: each.clone() for name, each in target.items()} for target in self.targets)
        return DetectionBatch(tuple(image.clone() for image in self.images), targets)

    def take(self, other: Any) -> None:
        for own, new in zip(self._tensors(), other._tensors(), strict=True):
            own.copy_(new)

    def _tensors(self) -> list[Tensor]:
        return [*self.images, *(each for target in self.targets for each in target.values())]


def batch_count(ratios: Sequence[float], batch_size: int) -> int:
    """Number of batches of `aspect_batches`: the same for every seed and epoch."""
    sizes = np.bincount(_groups(ratios))
    rest = int((sizes % batch_size).sum())
    return int((sizes // batch_size).sum()) + -(-rest // batch_size)


def aspect_batches(ratios: Sequence[float], batch_size: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Positions in `ratios` (N,), each once, in batches of similar width / height: less of a batch is padding.

    The order of images and batches is random. What is left of the groups forms the last batches, sorted by ratio.
    """
    generator = np.random.Generator(np.random.PCG64(derive_seed("order", seed, epoch)))
    order = generator.permutation(len(ratios))
    groups = _groups(ratios)[order]
    batches: list[NDArray[np.int64]] = []
    rest: list[NDArray[np.int64]] = []
    for group in np.unique(groups):
        members = order[groups == group]
        whole = len(members) // batch_size * batch_size
        batches += np.split(members[:whole], range(batch_size, whole, batch_size)) if whole else []
        rest.append(members[whole:])
    left = np.concatenate(rest)
    batches += np.split(left, range(batch_size, len(left), batch_size)) if len(left) else []
    return [batches[place] for place in generator.permutation(len(batches))]


def _groups(ratios: Sequence[float]) -> NDArray[np.int64]:
    """The group of each aspect ratio, (N,)."""
    groups: NDArray[np.int64] = np.digitize(np.asarray(ratios), RATIOS)
    return groups
