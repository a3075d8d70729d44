"""Labelled images that are not loaded yet: what a data source returns, and how subsets are chosen. Pure numpy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError
from ralr_tune.images.files import Images, digest64, listed
from ralr_tune.kinds.classification.stratify import Rows, stratified_split
from ralr_tune.records import Skipped
from ralr_tune.seeds import derive_seed

MAX_CLASSES = 100_000
"""Maximum of a data set; ImageNet has 21,841."""

TEST_SHARE = 0.2
"""Share that is set aside as test split if a source has no test data."""


class Contents:
    """Hashes of the contents of N samples. Each is computed once: while the sample is decoded, or on request."""

    def __init__(self, count: int, compute: Callable[[Rows], NDArray[np.uint64]]) -> None:
        """`compute`: rows (n,) to hashes (n,); equal contents have equal hashes. May raise DataError."""
        self._compute = compute
        self._hashes = np.zeros(count, dtype=np.uint64)
        self._known = np.zeros(count, dtype=bool)

    def add(self, rows: Rows | int, hashes: NDArray[np.uint64] | int) -> None:
        """Stores the hashes of contents that were just read. Threads may call it."""
        self._hashes[rows] = hashes
        self._known[rows] = True

    def known(self, rows: Rows) -> bool:
        """Whether all of them are computed."""
        return bool(self._known[rows].all())

    def of(self, rows: Rows) -> NDArray[np.uint64]:
        """(n,) of the rows (n,). Raises DataError."""
        missing = rows[~self._known[rows]]
        if len(missing):
            self.add(missing, self._compute(missing))
        return self._hashes[rows]


@dataclass(frozen=True)
class Listing:
    """All N samples of a source, as stored: what is known without decoding them."""

    stamp: str | None
    """A hash of the names, sizes and modification times of the files that they are read from; None if unknown."""
    names: Callable[[int], str]
    """Row to name, for display."""
    contents: Contents
    sizes: NDArray[np.int64] | None = None
    """(N,) in bytes; None if all are equal."""
    quick: Callable[[Rows], NDArray[np.uint64]] | None = None
    """Like `Contents.of`, for a part of each sample that is fast to read; None if all of it is. Raises DataError."""
    separate: bool = True
    """Whether the contents can be hashed without decoding them, so that copies can be found before training."""


@dataclass(frozen=True)
class Samples:
    """Labels (N,) from 0 to classes - 1, and the images, which only `load` reads."""

    labels: Rows
    read: Callable[[Rows], Images]
    """Rows (n,) of the source to images (n, C, H, W) in 0 .. 255. Raises DataError."""
    rows: Rows
    """(N,): positions of the images in the source."""
    stamp: str | None = None
    """Changes whenever what `read` returns may change; None if that is unknown: the images are then not cached."""
    listing: Listing | None = None
    origin: str = ""
    """Where they come from, for display."""
    skipped: tuple[Skipped, ...] = ()
    """Files next to them that are not read."""
    in_threads: bool = False
    """Whether several threads may call `read`, each for some of the rows; otherwise it is called once, for all rows."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Rows) -> Samples:
        """The samples at `positions`."""
        return replace(self, labels=self.labels[positions], rows=self.rows[positions])

    def keep_classes(self, indices: Sequence[int], classes: int) -> Samples:
        """The samples of the classes `indices`, with labels renumbered in that order."""
        number = np.full(classes, -1, dtype=np.int64)
        number[list(indices)] = np.arange(len(indices))
        chosen = self.take(np.flatnonzero(number[self.labels] >= 0))
        return replace(chosen, labels=number[chosen.labels])

    def load(self) -> Images:
        """The images (N, C, H, W)."""
        return self.read(self.rows)


@dataclass(frozen=True)
class Source:
    """A data set: its classes, its training data, and its test data, which only `test` reads."""

    classes: tuple[str, ...]
    train: Samples
    test: Callable[[], Samples]
    validation: Samples | None = None
    """Its own validation data, if it has any."""
    skipped: tuple[Skipped, ...] = ()
    """Files next to the data that belong to no split and are not read."""
    every_class: tuple[str, str] | None = None
    """If every class must have training images: where the data are and what is allowed, for the message."""


def split_digest(samples: Samples) -> str | None:
    """A hash of the contents and labels of all samples, in their order; None without a listing. Raises DataError."""
    if samples.listing is None:
        return None
    total = hashlib.sha256(b"contents 1")
    for numbers in (samples.labels.astype("<i8"), samples.listing.contents.of(samples.rows).astype("<u8")):
        total.update(numbers.tobytes())
    return total.hexdigest()


def digests_of(images: NDArray[Any], rows: Rows) -> NDArray[np.uint64]:
    """Hashes (n,) of the rows (n,) of images (N, ...)."""
    return np.array([digest64(images[row].tobytes()) for row in rows], dtype=np.uint64)


def all_samples(labels: Rows, read: Callable[[Rows], Images], stamp: str | None = None, **more: Any) -> Samples:
    """All samples of a source, in its order. `more`: further fields of `Samples`."""
    return Samples(labels=labels.astype(np.int64), read=read, rows=np.arange(len(labels)), stamp=stamp, **more)


def with_test_split_from_train(classes: tuple[str, ...], samples: Samples, *, where: str) -> Source:
    """A source without test data: a stratified fifth is set aside as test split, the same in every study."""
    try:
        test, train = stratified_split(samples.labels, round(TEST_SHARE * len(samples)), seed=derive_seed("test split"))
    except ValueError as error:
        raise DataError(f"{where}: no test data, and none can be set aside: {error}") from error
    share = f"a stratified {TEST_SHARE:.0%} of {samples.origin or where}"
    rest = replace(samples, origin=f"the rest of {samples.origin or where}", skipped=())
    held_out = replace(rest, origin=share)
    return Source(classes, train=rest.take(train), test=lambda: held_out.take(test), skipped=samples.skipped)


def hold_out(labels: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Positions in `labels` (N,) as (validation, train), stratified; `seed`: the study's seed. Raises DataError."""
    try:
        held_out, train = stratified_split(labels, round(share * len(labels)), seed=derive_seed("validation", seed))
    except ValueError as error:
        raise DataError(f"task.validation = {share}: {error}") from error
    if len(held_out) == 0:
        raise DataError(f"task.validation = {share}: none of {len(labels)} images; must hold out at least one")
    return held_out, train


def check_every_class(source: Source) -> None:
    """Raises DataError for a single class, and for classes without training images if each must have some."""
    if source.every_class is None:
        return
    where, allowed = source.every_class
    if len(source.classes) < 2:
        raise DataError(f"{where}: has one class, {listed(source.classes)}; must be two or more")
    counts = np.bincount(source.train.labels, minlength=len(source.classes))
    if empty := [name for name, count in zip(source.classes, counts, strict=True) if count == 0]:
        raise DataError(
            f"{where}: no images for the classes {listed(empty)}; {allowed}; "
            "set data.classes = [...] to use only some classes"
        )


def restrict(source: Source, *, classes: Sequence[str | int] | None, limit: int | None) -> Source:
    """The source with only these classes (names or indices, renumbered in this order), then `limit` training images.

    The subset is stratified and the same in every study; validation and test data keep all images of the classes.
    """
    if classes is not None:
        source = _keep_classes(source, _indices(source.classes, classes))
    return source if limit is None else _limited(source, limit)


def _keep_classes(source: Source, indices: list[int]) -> Source:
    count = len(source.classes)
    return replace(
        source,
        classes=tuple(source.classes[index] for index in indices),
        train=source.train.keep_classes(indices, count),
        test=lambda: source.test().keep_classes(indices, count),
        validation=None if source.validation is None else source.validation.keep_classes(indices, count),
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
    count = len(source.train)
    if limit >= count:
        return source
    try:
        _, chosen = stratified_split(source.train.labels, count - limit, seed=derive_seed("limit"))
    except ValueError as error:
        raise DataError(
            f"data.limit = {limit}: must be at least the number of classes, {len(source.classes)}"
        ) from error
    return replace(source, train=source.train.take(chosen))
