"""Annotated images that are not decoded yet: what a data source returns. Pure numpy.

Boxes are corners (x1, y1, x2, y2) in pixels of the stored image, counted from 0: x2 - x1 is the width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError
from ralr_tune.studyfile.problems import one_line

MAX_LISTED = 10
"""Problems of annotations that one message lists."""


@dataclass(frozen=True, eq=False)
class Objects:
    """The n objects of one image."""

    corners: NDArray[np.float32]
    """(n, 4), each with a positive area inside of the image."""
    labels: NDArray[np.int64]
    """(n,) classes from 0."""
    crowd: NDArray[np.bool_]
    """(n,): a region of many objects (COCO's iscrowd). Not trained on; detections inside it do not count."""
    difficult: NDArray[np.bool_]
    """(n,): VOC's flag. Trained on, as in Detectron2; detections of it do not count."""
    areas: NDArray[np.float32]
    """(n,) in pixels: what COCO's metric by size compares; of the segment if there is one, otherwise of the box."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: NDArray[Any]) -> Self:
        """The objects at these positions, or where a mask is true."""
        return type(self)(*(getattr(self, each.name)[chosen] for each in fields(self)))

    def renumbered(self, number: NDArray[np.int64]) -> Self:
        """With label l as number[l], without those for which that is below 0."""
        kept = self.take(number[self.labels] >= 0)
        return type(self)(kept.corners, number[kept.labels], kept.crowd, kept.difficult, kept.areas)


@dataclass(frozen=True, eq=False)
class Picture:
    """One image with its objects."""

    file: str
    width: int
    height: int
    """In pixels, as annotated."""
    objects: Objects


@dataclass(frozen=True)
class Cleaned:
    """Boxes of one class and split that were not used as annotated."""

    empty: int = 0
    """Without an area: left out."""
    outside: int = 0
    """Entirely outside of the image: left out."""
    clipped: int = 0
    """Partly outside of the image: clipped to it."""

    def __add__(self, other: Cleaned) -> Cleaned:
        return Cleaned(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True, eq=False)
class Part:
    """The images of one split."""

    pictures: Sequence[Picture]
    origin: str
    """Where they come from, for display."""
    cleaned: Mapping[str, Cleaned] = field(default_factory=dict)
    """By class; only classes with such boxes."""
    annotations: tuple[str, ...] = ()
    """The files with the annotations."""

    def __len__(self) -> int:
        return len(self.pictures)

    def boxes(self, classes: int) -> NDArray[np.int64]:
        """(classes,): boxes of each class that are not crowds."""
        counts = np.zeros(classes, dtype=np.int64)
        for picture in self.pictures:
            counts += np.bincount(picture.objects.labels[~picture.objects.crowd], minlength=classes)
        return counts


@dataclass(frozen=True)
class Source:
    """A data set: its classes, its training data, and its test data, which only `test` reads."""

    classes: tuple[str, ...]
    """By label, from the training data."""
    train: Part
    test: Callable[[], Part]
    validation: Part | None = None
    """Its own validation data, if it has any."""


class Faults:
    """Problems of annotations, one line each: a reader collects all of them before it raises an error."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, where: str, what: str) -> None:
        self._lines.append(f"{one_line(where)}: {what}")

    def check(self) -> None:
        """Raises DataError with the problems so far, if there are any, in one line."""
        if self._lines:
            more = len(self._lines) - MAX_LISTED
            raise DataError("; ".join(self._lines[:MAX_LISTED]) + (f"; and {more:,} more" if more > 0 else ""))
