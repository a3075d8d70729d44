"""Labelled images before they are loaded: what a data source returns, and how subsets are chosen. Pure numpy."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.stratify import Rows, stratified_split
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile.problems import cut, one_line

Images = NDArray[np.uint8]

MAX_CLASSES = 100_000
"""Of a data set; ImageNet has 21,841."""

TEST_SHARE = 0.2
"""Share that is set aside as test split if a source has no test data of its own."""


@dataclass(frozen=True)
class Samples:
    """Labels (N,) from 0 to classes - 1, and their images, which only `load` reads."""

    labels: Rows
    read: Callable[[Rows], Images]
    """Rows (n,) of the source to images (n, C, H, W) in 0 .. 255. Raises DataError."""
    rows: Rows
    """(N,): positions of the images in the source."""
    stamp: str | None = None
    """Changes whenever the data that `read` reads change; None if that is unknown: then the images are not cached."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Rows) -> Samples:
        """The samples at `positions`."""
        return replace(self, labels=self.labels[positions], rows=self.rows[positions])

    def keep_classes(self, kept: Sequence[int], classes: int) -> Samples:
        """The samples of the classes `kept`, with labels renumbered in that order."""
        number = np.full(classes, -1, dtype=np.int64)
        number[list(kept)] = np.arange(len(kept))
        chosen = self.take(np.flatnonzero(number[self.labels] >= 0))
        return replace(chosen, labels=number[chosen.labels])

    def load(self) -> Images:
        """The images (N, C, H, W)."""
        return self.read(self.rows)


@dataclass(frozen=True)
class Source:
    """A data set: its classes, its training data, and its test data, which are not read before `test` is called."""

    classes: tuple[str, ...]
    train: Samples
    test: Callable[[], Samples]
    validation: Samples | None = None
    """Its own validation data, if it has any."""


def short_reason(error: Exception) -> str:
    """The first line of a library's error, at most 300 characters; its type if the error has no text."""
    return cut(one_line(str(error).strip().partition("\n")[0]), 300) or type(error).__name__


def stamp(files: Iterable[str | Path]) -> str | None:
    """A hash of names, sizes and modification times; None if a file cannot be accessed."""
    total = hashlib.sha256()
    try:
        for file in files:
            found = os.stat(file)
            total.update(f"{os.path.abspath(file)}|{found.st_size}|{found.st_mtime_ns}\n".encode())
    except OSError:
        return None
    return total.hexdigest()


def listed(names: Sequence[str]) -> str:
    """The first 20 names, shortened and escaped for a message: they come from the data and may contain anything."""
    return ", ".join(one_line(cut(name, 80)) for name in names[:20]) + (", ..." if len(names) > 20 else "")


def all_samples(labels: Rows, read: Callable[[Rows], Images], stamp: str | None = None) -> Samples:
    """Every sample of a source, in the order of the source."""
    return Samples(labels=labels.astype(np.int64), read=read, rows=np.arange(len(labels)), stamp=stamp)


def with_own_test_split(classes: tuple[str, ...], samples: Samples, *, where: str) -> Source:
    """A source without test data: a stratified fifth is set aside as test split, the same one in every study."""
    try:
        test, train = stratified_split(samples.labels, round(TEST_SHARE * len(samples)), seed=derive_seed("test split"))
    except ValueError as error:
        raise DataError(f"{where}: has no test data of its own, and {error}") from error
    return Source(classes, train=samples.take(train), test=lambda: samples.take(test))


def restrict(source: Source, *, classes: Sequence[str | int] | None, limit: int | None) -> Source:
    """The source with only these classes (names or indices, renumbered in this order), then `limit` training images.

    The subset is stratified and the same in every study; validation and test data keep all images of the classes.
    """
    if classes is not None:
        source = _keep_classes(source, _indices(source.classes, classes))
    return source if limit is None else _limited(source, limit)


def _keep_classes(source: Source, kept: list[int]) -> Source:
    count = len(source.classes)
    return Source(
        classes=tuple(source.classes[index] for index in kept),
        train=source.train.keep_classes(kept, count),
        test=lambda: source.test().keep_classes(kept, count),
        validation=None if source.validation is None else source.validation.keep_classes(kept, count),
    )


def _indices(known: tuple[str, ...], wanted: Sequence[str | int]) -> list[int]:
    indices = [_index(known, value) for value in wanted]
    if len(indices) < 2 or len(set(indices)) < len(indices):
        raise DataError(f"data.classes = {list(wanted)!r}: must be two or more different classes")
    return indices


def _index(known: tuple[str, ...], value: str | int) -> int:
    if isinstance(value, str) and value in known:
        return known.index(value)
    if isinstance(value, int) and 0 <= value < len(known):
        return value
    allowed = f"0 to {len(known) - 1}, or the names {listed(known)}"
    raise DataError(f"data.classes: {value!r} is not a class of the data; allowed: {allowed}")


def _limited(source: Source, limit: int) -> Source:
    most = len(source.train)
    if limit >= most:
        return source
    try:
        _, kept = stratified_split(source.train.labels, most - limit, seed=derive_seed("limit"))
    except ValueError as error:
        raise DataError(
            f"data.limit = {limit}: must be at least the number of classes, {len(source.classes)}"
        ) from error
    return replace(source, train=source.train.take(kept))
