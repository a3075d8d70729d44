"""The inventory of a data set: images per class and split, what was skipped, exact copies; and its test data, verified.

Verifying decodes every test image and holds its size and channels against those of train. Nothing of it stays, and no
label of it reaches a model.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.decoded import alone
from ralr_tune.kinds.classification.samples import Samples, Source, hold_out, listed
from ralr_tune.kinds.classification.stratify import Rows
from ralr_tune.machine.cores import available_cores
from ralr_tune.records import Duplicates, Inventory, Skipped, SplitInventory
from ralr_tune.studyfile.problems import one_line
from ralr_tune.tasks.inventory import keep, kept

logger = logging.getLogger(__name__)

FORMAT = "inventory 1"
EXAMPLES = 3
"""Pairs of copies that are named."""
BLOCK = 32
"""Images that a thread decodes before it looks whether it is still wanted."""

Splits = Mapping[str, Samples]


def take_inventory(
    source: Source, *, name: str, validation: float, seed: int, cache: Path | None = None, sample: int | None = None
) -> Inventory:
    """The inventory of `source`, its test data verified: all of them, or `sample` of them, evenly spread.

    `name`: kind and place of the data, for people. `validation` and `seed` (the study's) say what is held out. What
    was verified is remembered in the folder `cache`, by names, sizes and times of change. Raises DataError.
    """
    splits = dict(_splits(source, validation, seed))
    stamp = _stamp(source, splits)
    if cache is None:
        return _taken(source, name, splits, sample)
    with alone(cache.parent, ".inventory.lock"):
        found = kept(cache, stamp) if stamp else None
        if found is None:
            found = _taken(source, name, splits, sample)
            if sample is None:
                keep(found, cache, stamp)
    return found


def _splits(source: Source, validation: float, seed: int) -> Iterator[tuple[str, Samples]]:
    """As trials use them: what is held out of train for validation is no part of train."""
    if source.validation is None:
        held_out, rest = hold_out(source.train.labels, validation, seed)
        yield "train", source.train.take(rest)
        share = f"{validation:.3g} of the training images, held out (stratified, by the study's seed)"
        yield "validation", replace(source.train.take(held_out), origin=share)
    else:
        yield "train", source.train
        yield "validation", source.validation
    yield "test", source.test()


def _stamp(source: Source, splits: Splits) -> str | None:
    """A hash of all that the inventory says; None if a split may change unseen."""
    text = "|".join([FORMAT, *source.classes, *map(str, _skipped(source, splits))])
    total = hashlib.sha256(text.encode(errors="backslashreplace"))
    for name, samples in splits.items():
        if samples.listing is None or samples.listing.stamp is None:
            return None
        total.update(f"|{name}|{samples.listing.stamp}|".encode())
        for numbers in (samples.rows, samples.labels):
            total.update(numbers.astype("<i8").tobytes())
    return total.hexdigest()


def _taken(source: Source, name: str, splits: Splits, sample: int | None) -> Inventory:
    own = {split: _inventory_of(split, samples, len(source.classes)) for split, samples in splits.items()}
    shape = _shape(splits)
    verified = _verify(splits["test"], shape, sample)
    return Inventory(
        source=one_line(name),
        classes=tuple(map(one_line, source.classes)),
        splits=tuple(own.values()),
        skipped=_skipped(source, splits),
        duplicates=None if sample is not None else _duplicates(splits),
        verified=verified,
    )


def _skipped(source: Source, splits: Splits) -> tuple[Skipped, ...]:
    """Each once: held-out validation lies where train lies. Names as people may be shown them."""
    every = [*source.skipped, *(each for samples in splits.values() for each in samples.skipped)]
    shown = (replace(each, group=one_line(each.group), what=one_line(each.what)) for each in every)
    return tuple(dict.fromkeys(shown))


def _inventory_of(split: str, samples: Samples, classes: int) -> SplitInventory:
    counts = np.bincount(samples.labels, minlength=classes).tolist()
    listing = samples.listing.stamp if samples.listing else None
    return SplitInventory(split, one_line(samples.origin), tuple(counts), listing)


# ---------------------------------------------------------------- whether test data can be read


def _shape(splits: Splits) -> tuple[int, ...]:
    """(C, H, W) of the images that are trained on, and, by its first one, of validation. Raises DataError."""
    for name, samples in splits.items():
        if not len(samples):
            raise DataError(f"data: the {name} split holds no image of the classes asked for")
    train, validation = (splits[name].take(np.arange(1)).load().shape[1:] for name in ("train", "validation"))
    if validation != train:
        raise DataError(f"validation images are {validation}, those of train {train} (C, H, W)")
    return train


def _verify(test: Samples, shape: tuple[int, ...], sample: int | None) -> int:
    """How many test images were decoded. Raises DataError, naming all that cannot be, or that do not fit."""
    count = len(test) if sample is None else min(sample, len(test))
    rows = test.rows[np.linspace(0, len(test) - 1, count).astype(np.int64)]
    problems = _unreadable(test, rows, shape) if test.in_threads else _misfits(test, rows, shape)
    if problems:
        (_, line), *more = problems
        names = f" (and {len(more)} more: {listed([_name(test, row) for row, _ in more])})" if more else ""
        raise DataError(f"{line}{names}")
    return count


Problem = tuple[int, str]
"""A row, and what is wrong with it."""


def _unreadable(test: Samples, rows: Rows, shape: tuple[int, ...]) -> list[Problem]:
    """What is wrong with each image, if anything; several are decoded at a time."""

    def look(block: Rows) -> list[Problem]:
        return [problem for row in block for problem in _problem(test, np.array([row]), shape)]

    blocks = np.array_split(rows, -(-len(rows) // BLOCK))
    with ThreadPoolExecutor(available_cores()) as pool:
        try:
            return [problem for found in pool.map(look, blocks) for problem in found]
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C: what was not begun is left


def _problem(test: Samples, rows: Rows, shape: tuple[int, ...]) -> list[Problem]:
    try:
        return _misfits(test, rows, shape)
    except DataError as error:
        return [(int(rows[0]), str(error))]


def _misfits(test: Samples, rows: Rows, shape: tuple[int, ...]) -> list[Problem]:
    found = test.read(rows).shape[1:]
    if found == shape:
        return []
    return [(int(rows[0]), f"test images are {found}, those of train {shape} (C, H, W)")]


# ---------------------------------------------------------------- exact copies


def _duplicates(splits: Splits) -> tuple[Duplicates, ...] | None:
    """Exact copies across splits: equal size first, then equal hash. None if contents cannot be compared."""
    names, parts = list(splits), list(splits.values())
    if any(part.listing is None or part.listing.digests is None for part in parts):
        return None
    of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    if all(part.listing and part.listing.sizes is not None for part in parts):
        sizes = np.concatenate([part.listing.sizes[part.rows] for part in parts if part.listing])  # type: ignore[index]
        of, rows = _shared(sizes, of, rows)
        of, rows = _shared(_digests(parts, of, rows, quick=True), of, rows)
    keys = _digests(parts, of, rows, quick=False)
    pairs = (_copies(names, parts, keys, of, rows, *pair) for pair in combinations(range(len(parts)), 2))
    return tuple(found for found in pairs if found)


def _shared(keys: NDArray[np.generic], of: Rows, rows: Rows) -> tuple[Rows, Rows]:
    """Those whose key occurs in more than one split."""
    _, place = np.unique(keys, return_inverse=True)
    splits = np.zeros(place.max(initial=-1) + 1, dtype=np.int64)
    np.bitwise_or.at(splits, place, 1 << of)
    several = (splits & (splits - 1) != 0)[place]
    return of[several], rows[several]


def _digests(parts: Sequence[Samples], of: Rows, rows: Rows, *, quick: bool) -> NDArray[np.uint64]:
    found = np.zeros(len(rows), dtype=np.uint64)
    for listing in {id(part.listing): part.listing for part in parts}.values():  # splits of one array read it once
        own = np.isin(of, [number for number, part in enumerate(parts) if part.listing is listing])
        if own.any() and listing and listing.digests:
            found[own] = listing.digests(rows[own], quick)
    return found


def _copies(
    names: Sequence[str], parts: Sequence[Samples], keys: NDArray[np.uint64], of: Rows, rows: Rows, one: int, other: int
) -> Duplicates | None:
    """The samples of the split `other` that `one` holds, too."""
    first = dict(zip(keys[of == one].tolist()[::-1], rows[of == one].tolist()[::-1], strict=True))
    copies = [(int(row), first[key]) for key, row in zip(keys[of == other].tolist(), rows[of == other], strict=True)
              if key in first]  # fmt: skip
    if not copies:
        return None
    examples = tuple((_name(parts[other], row), _name(parts[one], same)) for row, same in copies[:EXAMPLES])
    return Duplicates(names[other], names[one], len(copies), examples)


def _name(samples: Samples, row: int) -> str:
    return one_line(samples.listing.names(row)) if samples.listing else str(row)
