"""Augmentation of one image with its boxes: parameters from its own generator, applied by torchvision's v2 functions.

v2's transform classes draw from torch's global generator: with them, an image could not be a pure function of
(seed, epoch, index), nor be augmented in a thread. Every geometric step ends in `_valid`: boxes are clamped to the
image, those that nearly vanish are removed, and labels and flags with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxFormat

MIN_SIDE = 1.0
"""Pixels: a box that is narrower after a crop is removed. torchvision's detectors refuse boxes without an area."""

FILL = 114
"""Grey level around reduced images, as YOLOv5 fills."""

SCALES = (0.8, 1.25)
"""Standard scale jittering: Ghiasi et al. 2021, arXiv 2012.07177, section 3."""

CROP_IOUS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Least IoU of a crop with any box; 1.0: the whole image. Liu et al. 2016, arXiv 1512.02325, section 2.2, with 0 for
"sample a patch at random", as in torchvision's RandomIoUCrop."""
CROP_TRIALS = 40
"""Crops that are tried for one IoU, as in RandomIoUCrop."""
CROP_DRAWS = 10
"""IoUs that are drawn before the image stays whole (our choice): RandomIoUCrop may try for ever."""


@dataclass(frozen=True)
class Sample:
    """One image and its n objects."""

    image: Tensor
    """(3, H, W) uint8."""
    boxes: Tensor
    """(n, 4) float32, corners in pixels."""
    labels: Tensor
    """(n,) int64 from 0."""
    difficult: Tensor
    """(n,) bool."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return int(self.image.shape[1]), int(self.image.shape[2])

    def take(self, kept: Tensor) -> Sample:
        """With the objects for which `kept`, (n,) bool, is true."""
        return replace(self, boxes=self.boxes[kept], labels=self.labels[kept], difficult=self.difficult[kept])


Partner = Callable[[Generator], Sample]
"""Draws another image of the split."""
Augmentation = Callable[[Sample, Generator, Partner], Sample]


def augmented(sample: Sample, names: Sequence[str], generator: Generator, partner: Partner) -> Sample:
    """The sample after all of these augmentations; mosaic comes first, since it joins images that are not augmented."""
    for name in sorted(names, key=lambda each: each != "mosaic"):
        sample = DETECTION_AUGMENTATIONS[name](sample, generator, partner)
    return sample


def flipped(sample: Sample, generator: Generator, partner: Partner) -> Sample:
    """Horizontally, with probability 1/2."""
    if generator.random() < 0.5:
        return sample
    boxes = F.horizontal_flip_bounding_boxes(sample.boxes, BoundingBoxFormat.XYXY, sample.size)
    return _valid(replace(sample, image=F.horizontal_flip(sample.image), boxes=boxes))


def scale_jittered(sample: Sample, generator: Generator, partner: Partner) -> Sample:
    """Resized by a factor from SCALES, then cropped or filled to its size, at a random place."""
    height, width = sample.size
    scale = generator.uniform(*SCALES)
    new = max(1, round(height * scale)), max(1, round(width * scale))
    factors = torch.tensor([new[1] / width, new[0] / height] * 2)
    image = F.resize(sample.image, list(new), antialias=True)
    sample = replace(sample, image=image, boxes=sample.boxes * factors)
    return _placed(sample, height, width, generator)


def _placed(sample: Sample, height: int, width: int, generator: Generator) -> Sample:
    """A window of this size, drawn inside of the image or, along a shorter side, around it."""
    have_height, have_width = sample.size
    top, left = (_offset(have - want, generator) for have, want in ((have_height, height), (have_width, width)))
    canvas = torch.full((3, height, width), FILL, dtype=torch.uint8)
    shown = sample.image[:, max(0, top) : top + height, max(0, left) : left + width]
    down, right = max(0, -top), max(0, -left)
    canvas[:, down : down + shown.shape[1], right : right + shown.shape[2]] = shown
    return _valid(replace(sample, image=canvas, boxes=sample.boxes - torch.tensor([left, top] * 2)))


def _offset(spare: int, generator: Generator) -> int:
    """Of a window: 0 to `spare`, or `spare` to 0 if it is negative."""
    return int(generator.integers(min(0, spare), max(0, spare) + 1))


def iou_cropped(sample: Sample, generator: Generator, partner: Partner) -> Sample:
    """A crop that overlaps one of the boxes enough; boxes whose centres are outside are removed.

    Liu et al. 2016 (SSD), section 2.2: sides of 0.3 to 1 of the image's, aspect ratio between 1/2 and 2.
    """
    for _ in range(CROP_DRAWS if len(sample.boxes) else 0):
        least = generator.choice(CROP_IOUS)
        if least >= 1.0:
            break
        if (found := _crop(sample, float(least), generator)) is not None:
            return found
    return sample


def _crop(sample: Sample, least: float, generator: Generator) -> Sample | None:
    height, width = sample.size
    centres = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
    for _ in range(CROP_TRIALS):
        new_width, new_height = (max(1, int(side * generator.uniform(0.3, 1.0))) for side in (width, height))
        if not 0.5 <= new_width / new_height <= 2.0:
            continue
        left, top = _offset(width - new_width, generator), _offset(height - new_height, generator)
        crop = torch.tensor([left, top, left + new_width, top + new_height], dtype=torch.float32)
        inside = ((centres > crop[:2]) & (centres < crop[2:])).all(1)
        if not inside.any() or box_iou(sample.boxes[inside], crop[None]).max() < least:
            continue
        kept = sample.take(inside)
        image = kept.image[:, top : top + new_height, left : left + new_width].contiguous()
        return _valid(replace(kept, image=image, boxes=kept.boxes - crop[:2].repeat(2)))
    return None


def recoloured(sample: Sample, generator: Generator, partner: Partner) -> Sample:
    """Brightness, contrast, saturation and hue, each with probability 1/2 (RandomPhotometricDistort's ranges)."""
    image = sample.image
    changes = (
        (F.adjust_brightness, 0.875, 1.125),
        (F.adjust_contrast, 0.5, 1.5),
        (F.adjust_saturation, 0.5, 1.5),
        (F.adjust_hue, -0.05, 0.05),
    )
    for change, low, high in changes:
        chosen, factor = generator.random() < 0.5, generator.uniform(low, high)
        image = change(image, factor) if chosen else image
    return replace(sample, image=image)


def mosaicked(sample: Sample, generator: Generator, partner: Partner) -> Sample:
    """With probability 1/2, windows of this and three other images around a random point, at their own scale.

    Bochkovskiy et al. 2020 (YOLOv4), arXiv 2004.10934, section 3.3, whose code also cuts windows and resizes none.
    """
    if generator.random() < 0.5:
        return sample
    height, width = sample.size
    row, column = (max(1, round(side * generator.uniform(0.25, 0.75))) for side in (height, width))
    tiles = [sample, *(partner(generator) for _ in range(3))]
    places = [(0, 0, row, column), (0, column, row, width), (row, 0, height, column), (row, column, height, width)]
    image = torch.full((3, height, width), FILL, dtype=torch.uint8)
    parts = []
    for tile, (top, left, bottom, right) in zip(tiles, places, strict=True):
        window = _placed(tile, bottom - top, right - left, generator) if bottom > top and right > left else None
        if window is not None:
            image[:, top:bottom, left:right] = window.image
            parts.append(replace(window, boxes=window.boxes + torch.tensor([left, top] * 2)))
    boxes, labels, flags = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("boxes", "labels", "difficult")
    )
    return _valid(Sample(image, boxes, labels, flags))


def _valid(sample: Sample) -> Sample:
    """With boxes clamped to the image, and without those that are narrower than MIN_SIDE."""
    boxes = F.clamp_bounding_boxes(sample.boxes, BoundingBoxFormat.XYXY, sample.size, clamping_mode="hard")
    return replace(sample, boxes=boxes).take((boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(1))


DETECTION_AUGMENTATIONS: Mapping[str, Augmentation] = {
    "mosaic": mosaicked,
    "flip": flipped,
    "scale_jitter": scale_jittered,
    "iou_crop": iou_cropped,
    "colour": recoloured,
}
"""By name in a study file."""


def generator_of(seed: int) -> Generator:
    """The generator of one image, which draws the same on every machine."""
    return np.random.Generator(np.random.PCG64(seed))
