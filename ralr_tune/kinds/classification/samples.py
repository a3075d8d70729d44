"""Labelled images before they are loaded: what a data source returns, and how subsets are chosen. Pure numpy."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.stratify import Rows, stratified_split
from ralr_tune.records import Skipped
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile.problems import cut, one_line

Images = NDArray[np.uint8]

MAX_CLASSES = 100_000
"""Of a data set; ImageNet has 21,841."""

TEST_SHARE = 0.2
"""Share that is set aside as test split if a source has no test data of its own."""


@dataclass(frozen=True)
class Listing:
    """All samples of a source, N of them, as they are stored: what can be said of them without decoding them."""

    stamp: str | None
    """A hash of the names, sizes and times of change of what they are read from; None if they are not known."""
    names: Callable[[int], str]
    """Row to name, for people."""
    sizes: NDArray[np.int64] | None = None
    """(N,) in bytes; None if all are equal."""
    digests: Callable[[Rows, bool], NDArray[np.uint64]] | None = None
    """Rows (n,) to hashes (n,) of their contents; with True of a part of each that is quick to read: equal contents
    have equal ones. None if the contents are not stored by sample. Raises DataError."""


@dataclass(frozen=True)
class Samples:
    """Labels (N,) from 0 to classes - 1, and their images, which only `load` reads."""

    labels: Rows
    read: Callable[[Rows], Images]
    """Rows (n,) of the source to images (n, C, H, W) in 0 .. 255. Raises DataError."""
    rows: Rows
    """(N,): positions of the images in the source."""
    stamp: str | None = None
    """Changes with whatever `read` reads; None where that is not known, and then no file is kept of the images."""
    listing: Listing | None = None
    origin: str = ""
    """Where they come from, for people."""
    skipped: tuple[Skipped, ...] = ()
    """What lies with them and is not read."""
    in_threads: bool = False
    """Whether `read` may be called for some rows at a time, by several threads; else for all at once."""

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
    """Its own validation data, where it has some."""
    skipped: tuple[Skipped, ...] = ()
    """What lies with the data, belongs to no split and is not read."""
    every_class: tuple[str, str] | None = None
    """Where the data lie and what is allowed, for a message, if every class must have training images."""


def short_reason(error: Exception) -> str:
    """The first line of a library's error, at most 300 characters; its type if the error has no text."""
    return cut(one_line(str(error).strip().partition("\n")[0]), 300) or type(error).__name__


def digest64(content: bytes) -> int:
    """A hash of 64 bits: among a million contents, two different ones share one with a chance of 3 in 100 million."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def digests_of(images: NDArray[Any], rows: Rows) -> NDArray[np.uint64]:
    """Hashes (n,) of the rows (n,) of images (N, ...)."""
    return np.array([digest64(images[row].tobytes()) for row in rows], dtype=np.uint64)


def stamp(files: Iterable[str | Path]) -> str | None:
    """A hash of names, sizes and modification times; None if a file cannot be accessed."""
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


def listed(names: Sequence[str]) -> str:
    """The first 20 names, shortened and escaped for a message: they come from the data and may contain anything."""
    return ", ".join(one_line(cut(name, 80)) for name in names[:20]) + (", ..." if len(names) > 20 else "")


def all_samples(labels: Rows, read: Callable[[Rows], Images], stamp: str | None = None, **more: Any) -> Samples:
    """Every sample of a source, in its order. `more`: further fields of `Samples`."""
    return Samples(labels=labels.astype(np.int64), read=read, rows=np.arange(len(labels)), stamp=stamp, **more)


def with_own_test_split(classes: tuple[str, ...], samples: Samples, *, where: str) -> Source:
    """A source without test data: a stratified fifth is set aside as test split, the same one in every study."""
    try:
        test, train = stratified_split(samples.labels, round(TEST_SHARE * len(samples)), seed=derive_seed("test split"))
    except ValueError as error:
        raise DataError(f"{where}: no test data of its own, and {error}") from error
    share = f"a stratified {TEST_SHARE:.0%} of {samples.origin or where}"
    rest = replace(samples, origin=f"the rest of {samples.origin or where}", skipped=())
    held_out = replace(rest, origin=share)
    return Source(classes, train=rest.take(train), test=lambda: held_out.take(test), skipped=samples.skipped)


def hold_out(labels: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Positions in `labels` (N,) as (validation, train), stratified; `seed` is the study's. Raises DataError."""
    try:
        held_out, train = stratified_split(labels, round(share * len(labels)), seed=derive_seed("validation", seed))
    except ValueError as error:
        raise DataError(f"task.validation = {share}: {error}") from error
    if len(held_out) == 0:
        raise DataError(f"task.validation = {share}: none of {len(labels)} images; must give at least one")
    return held_out, train


def check_every_class(source: Source) -> None:
    """Raises DataError for a single class, and for classes without training images where there must be some."""
    if source.every_class is None:
        return
    where, allowed = source.every_class
    if len(source.classes) < 2:
        raise DataError(f"{where}: holds one class, {listed(source.classes)}; must be two or more")
    counts = np.bincount(source.train.labels, minlength=len(source.classes))
    if empty := [name for name, count in zip(source.classes, counts, strict=True) if count == 0]:
        raise DataError(
            f"{where}: no images for the classes {listed(empty)}; {allowed}; data.classes = [...] names those to keep"
        )


def restrict(source: Source, *, classes: Sequence[str | int] | None, limit: int | None) -> Source:
    """The source with only these classes (names or indices, renumbered in this order), then `limit` training images.

    The subset is stratified and the same in every study; validation and test data keep all images of the classes.
    """
    if classes is not None:
        source = _keep_classes(source, _indices(source.classes, classes))
    return source if limit is None else _limited(source, limit)


def _keep_classes(source: Source, kept: list[int]) -> Source:
    count = len(source.classes)
    return replace(
        source,
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
