"""Labelled images before they are loaded: what a data source gives, and how parts of it are chosen. Pure numpy."""

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

MOST_CLASSES = 100_000
"""Of a data set; ImageNet has 21,841."""

TEST_SHARE = 0.2
"""Share of a source without test data of its own that is set aside as its test split."""


@dataclass(frozen=True)
class Samples:
    """Labels (N,) from 0 to classes - 1, and the images behind them, which only `load` reads."""

    labels: Rows
    read: Callable[[Rows], Images]
    """Rows (n,) of the source to images (n, C, H, W) in 0 .. 255. Raises DataError."""
    rows: Rows
    """(N,): where the images lie in the source."""
    stamp: str | None = None
    """Changes with whatever `read` reads; None where that is not known, and then no file is kept of the images."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Rows) -> Samples:
        """Those at `positions` of this."""
        return replace(self, labels=self.labels[positions], rows=self.rows[positions])

    def keep_classes(self, kept: Sequence[int], classes: int) -> Samples:
        """Those of the classes `kept`, renumbered in that order."""
        number = np.full(classes, -1, dtype=np.int64)
        number[list(kept)] = np.arange(len(kept))
        chosen = self.take(np.flatnonzero(number[self.labels] >= 0))
        return replace(chosen, labels=number[chosen.labels])

    def load(self) -> Images:
        """The images (N, C, H, W)."""
        return self.read(self.rows)


@dataclass(frozen=True)
class Source:
    """A data set: its classes, its training data, and its test data, which nothing reads before `test` is called."""

    classes: tuple[str, ...]
    train: Samples
    test: Callable[[], Samples]
    validation: Samples | None = None
    """Its own validation data, where it has some."""


def why(error: Exception) -> str:
    """A library's error over damaged data in a few words: some write essays, some nothing."""
    return cut(one_line(str(error).strip().partition("\n")[0]), 300) or type(error).__name__


def stamp(files: Iterable[str | Path]) -> str | None:
    """A hash of names, sizes and times of change; None where one cannot be looked at."""
    total = hashlib.sha256()
    try:
        for file in files:
            found = os.stat(file)
            total.update(
                f"{os.path.abspath(file)}|{found.st_size}|{found.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
    except OSError:
        return None
    return total.hexdigest()


def some(names: Sequence[str]) -> str:
    """The first few of names that came with data, as a message may show them."""
    return ", ".join(one_line(cut(name, 80)) for name in names[:20]) + (", ..." if len(names) > 20 else "")


def all_samples(labels: Rows, read: Callable[[Rows], Images], stamp: str | None = None) -> Samples:
    """Every sample of a source, in its order."""
    return Samples(labels=labels.astype(np.int64), read=read, rows=np.arange(len(labels)), stamp=stamp)


def with_own_test_split(classes: tuple[str, ...], samples: Samples, *, where: str) -> Source:
    """A source without test data of its own: a stratified fifth is set aside, the same one in every study."""
    try:
        test, train = stratified_split(samples.labels, round(TEST_SHARE * len(samples)), seed=derive_seed("test split"))
    except ValueError as error:
        raise DataError(f"{where}: no test data of its own, and {error}") from error
    return Source(classes, train=samples.take(train), test=lambda: samples.take(test))


def restrict(source: Source, *, classes: Sequence[str | int] | None, limit: int | None) -> Source:
    """The source with these classes alone (names or indices, renumbered in the order given), then `limit` train images.

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
        raise DataError(f"data.classes = {list(wanted)!r}: must be two or more classes, each once")
    return indices


def _index(known: tuple[str, ...], value: str | int) -> int:
    if isinstance(value, str) and value in known:
        return known.index(value)
    if isinstance(value, int) and 0 <= value < len(known):
        return value
    allowed = f"0 to {len(known) - 1}, or the names {some(known)}"
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
