"""The splits of a data set, from those that its files give; what is missing is drawn from the training data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError
from ralr_tune.images.files import listed
from ralr_tune.kinds.detection.annotated import Part, Source
from ralr_tune.kinds.detection.cleaning import RawPicture, cleaned_part
from ralr_tune.seeds import derive_seed

TEST_SHARE = 0.2
"""Share of the training images that is set aside as test split if a data set has none (our choice)."""


@dataclass(frozen=True)
class Splits:
    """The files of a data set, and how they are read."""

    files: Mapping[str, Sequence[Path]]
    """Annotation files by split."""
    read: Callable[[str, Sequence[Path]], list[RawPicture]]
    """(split, its files) to its images. Raises DataError."""
    class_names: Callable[[Sequence[RawPicture]], tuple[str, ...]]
    """The classes, from the training images."""


def make_source(splits: Splits, *, where: str) -> Source:
    """The data set. Its training data are read now, its validation data too, its test data on request.

    Without test data, a seeded fifth of the training images is set aside, the same in every study.
    """
    raw = splits.read("train", splits.files["train"])
    classes = splits.class_names(raw)
    if not classes:
        raise DataError(f"{where}: the training images have no objects")

    def part(split: str, pictures: Sequence[RawPicture]) -> Part:
        files = splits.files[split]
        origin = str(files[0]) if len(files) == 1 else f"{where} ({len(files):,} files)"
        return cleaned_part(pictures, classes, origin=origin, split=split, annotations=tuple(map(str, files)))

    train = part("train", raw)
    validation = None
    if "validation" in splits.files:
        validation = part("validation", splits.read("validation", splits.files["validation"]))
    if "test" in splits.files:
        return Source(classes, train, lambda: part("test", splits.read("test", splits.files["test"])), validation)
    test, rest = _without_test(train, where)
    return Source(classes, rest, lambda: test, validation)


def _without_test(train: Part, where: str) -> tuple[Part, Part]:
    """(test, rest)."""
    taken = round(TEST_SHARE * len(train))
    if taken < 1:
        raise DataError(f"{where}: no test data, and {len(train)} images are too few to set some aside")
    chosen, rest = drawn(len(train), taken, derive_seed("test split"))
    share = f"{TEST_SHARE:.0%} of {train.origin}, drawn at random"
    return replace(taken_of(train, chosen), origin=share), replace(
        taken_of(train, rest), origin=f"the rest of {train.origin}"
    )


def taken_of(part: Part, positions: NDArray[np.int64]) -> Part:
    """The images at these positions."""
    return replace(part, pictures=[part.pictures[position] for position in positions.tolist()])


def drawn(count: int, taken: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions 0 .. count - 1 as (taken, left), both sorted, drawn without regard to classes.

    An image has boxes of several classes: there is no one class to stratify by.
    """
    order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    return np.sort(order[:taken]), np.sort(order[taken:])


def hold_out(part: Part, share: float, seed: int) -> tuple[Part, Part]:
    """(validation, train) of training data without validation data; `seed` is the study's. Raises DataError."""
    taken = round(share * len(part))
    if not 1 <= taken < len(part):
        raise DataError(
            f"task.validation = {share}: {taken} of {len(part)} images; must leave at least one in each split"
        )
    held_out, rest = drawn(len(part), taken, derive_seed("validation", seed))
    origin = f"{share:.3g} of the training images, held out (by the study's seed)"
    return replace(taken_of(part, held_out), origin=origin), taken_of(part, rest)


def restrict(source: Source, *, classes: Sequence[str | int] | None, limit: int | None) -> Source:
    """The source with only these classes (names or indices, renumbered in this order), then `limit` training images.

    Images without an object of these classes stay, as images without objects. Validation and test data keep all images.
    """
    if classes is not None:
        source = _keep_classes(source, _indices(source.classes, classes))
    if limit is None or limit >= len(source.train):
        return source
    chosen, _ = drawn(len(source.train), limit, derive_seed("limit"))
    return replace(source, train=taken_of(source.train, chosen))


def _indices(known: tuple[str, ...], wanted: Sequence[str | int]) -> list[int]:
    def index(value: str | int) -> int:
        if isinstance(value, str) and value in known:
            return known.index(value)
        if isinstance(value, int) and 0 <= value < len(known):
            return value
        allowed = f"0 to {len(known) - 1}, or the names {listed(known)}"
        raise DataError(f"data.classes: {value!r} is not a class of the data; allowed: {allowed}")

    indices = [index(value) for value in wanted]
    if len(set(indices)) < len(indices):
        raise DataError(f"data.classes = {list(wanted)!r}: must be different classes")
    return indices


def _keep_classes(source: Source, indices: list[int]) -> Source:
    number = np.full(len(source.classes), -1, dtype=np.int64)
    number[indices] = np.arange(len(indices))
    names = tuple(source.classes[index] for index in indices)

    def kept(part: Part) -> Part:
        pictures = [replace(each, objects=each.objects.renumbered(number)) for each in part.pictures]
        return replace(part, pictures=pictures, cleaned={k: v for k, v in part.cleaned.items() if k in names})

    return Source(
        names,
        kept(source.train),
        lambda: kept(source.test()),
        None if source.validation is None else kept(source.validation),
    )
