"""From annotated objects to boxes that can be trained on: what is left out, clipped or refused. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError
from ralr_tune.images.files import listed
from ralr_tune.kinds.detection.annotated import Cleaned, Faults, Objects, Part, Picture

SURE = 10
"""Boxes of a split that are needed to judge their format by what they have in common (our choice)."""


@dataclass(frozen=True)
class RawObject:
    """One object as annotated."""

    name: str
    """Of its class."""
    corners: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels from 0."""
    crowd: bool = False
    difficult: bool = False
    area: float = 0.0
    """0: that of the box."""
    where: str = ""
    """Its place in its file, for messages."""


@dataclass(frozen=True)
class RawPicture:
    """One image as annotated."""

    file: str
    width: int
    height: int
    objects: Sequence[RawObject]
    annotation: str
    """The file that annotates it, for messages."""


def class_names(raw: Sequence[RawPicture]) -> tuple[str, ...]:
    """The classes of training data without a list of their own, in alphabetical order."""
    return tuple(sorted({each.name for picture in raw for each in picture.objects}))


def cleaned_part(
    raw: Sequence[RawPicture], classes: Sequence[str], *, origin: str, split: str, annotations: tuple[str, ...] = ()
) -> Part:
    """The images of a split. Raises DataError, naming file and box, for unknown classes and boxes in another unit."""
    faults, numbers = Faults(), {name: label for label, name in enumerate(classes)}
    check_unit(raw, split, faults)
    for picture in raw:
        for number, each in enumerate(picture.objects, 1):
            if each.name not in numbers:
                what = f"unknown class {each.name!r}; allowed: the classes of train, {listed(classes)}"
                faults.add(f"{picture.annotation}: {each.where or f'box {number}'}", what)
    faults.check()
    counts: dict[str, Cleaned] = {}
    pictures = [_cleaned(picture, numbers, counts) for picture in raw]
    return Part(pictures, origin, counts, annotations)


def check_unit(raw: Sequence[RawPicture], split: str, faults: Faults) -> None:
    """Adds boxes that are shares of the image to the faults; raises DataError for a split whose boxes are percentages.

    A share is at most 1 and not whole. Percentages look like pixels: they are recognised by all boxes of a split (at
    least `SURE`) ending within 100, in images that are at least twice as large.
    """
    ends = []
    for picture in raw:
        for number, each in enumerate(picture.objects, 1):
            ends.append(max(each.corners))
            if 0 < max(each.corners) <= 1 and any(not value.is_integer() for value in each.corners):
                what = f"{_corners_text(each.corners)} is a share of the image; must be pixels"
                faults.add(f"{picture.annotation}: {each.where or f'box {number}'}", what)
    smallest = min((min(each.width, each.height) for each in raw if each.objects), default=0)
    if len(ends) >= SURE and 1 < max(ends) <= 100 and smallest >= 200:
        first = next(each for each in raw if each.objects)
        box = _corners_text(first.objects[0].corners)
        raise DataError(
            f"{first.annotation}: {first.objects[0].where or 'box 1'}: {box}: all {len(ends):,} boxes of {split} end "
            f"within 100, in images of at least {smallest} pixels: they are in percent; must be pixels"
        )


def _corners_text(corners: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in corners) + ")"


def _cleaned(raw: RawPicture, numbers: Mapping[str, int], counts: dict[str, Cleaned]) -> Picture:
    corners = np.array([each.corners for each in raw.objects], dtype=np.float64).reshape(-1, 4)
    inside, kept, found = clean(corners, raw.width, raw.height)
    for each, what in zip(raw.objects, found, strict=True):
        if what is not None:
            counts[each.name] = counts.get(each.name, Cleaned()) + what
    chosen = [each for each, keep in zip(raw.objects, kept, strict=True) if keep]
    sides = inside[:, 2:] - inside[:, :2]
    given = np.array([each.area for each in chosen], dtype=np.float64)
    objects = Objects(
        corners=inside.astype(np.float32),
        labels=np.array([numbers[each.name] for each in chosen], dtype=np.int64),
        crowd=np.array([each.crowd for each in chosen], dtype=bool),
        difficult=np.array([each.difficult for each in chosen], dtype=bool),
        areas=np.where(given > 0, given, sides.prod(axis=1)).astype(np.float32),
    )
    return Picture(raw.file, raw.width, raw.height, objects)


def clean(
    corners: NDArray[np.float64], width: int, height: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[Cleaned | None]]:
    """Boxes (n, 4) in an image of this size: those that are kept (k, 4), clipped to it; which ones (n,); and what was
    done to each of the n, None if nothing."""
    limits = np.array([width, height, width, height], dtype=np.float64)
    clipped = corners.clip(0, limits)
    empty: NDArray[np.bool_] = np.any(corners[:, 2:] <= corners[:, :2], axis=1)
    outside: NDArray[np.bool_] = ~empty & np.any(clipped[:, 2:] <= clipped[:, :2], axis=1)
    changed: NDArray[np.bool_] = ~empty & ~outside & (clipped != corners).any(axis=1)
    done = [
        Cleaned(int(one), int(two), int(three)) if one or two or three else None
        for one, two, three in zip(empty, outside, changed, strict=True)
    ]
    kept: NDArray[np.bool_] = ~(empty | outside)
    return clipped[kept], kept, done
