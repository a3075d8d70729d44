"""The inventory of a data set: images per class and split, skipped files, exact copies, and verified test data.

Verifying decodes every test image and compares its size and channels with those of train. The pixels are discarded,
and no test label reaches a model.
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
from ralr_tune.images.files import listed
from ralr_tune.kinds.classification.samples import Samples, Source, hold_out, split_digest
from ralr_tune.kinds.classification.stratify import Rows
from ralr_tune.machine.cores import available_cores
from ralr_tune.machine.locks import exclusive
from ralr_tune.records import Duplicates, Inventory, Skipped, SplitInventory
from ralr_tune.studyfile.problems import one_line
from ralr_tune.tasks.inventory import load, save

logger = logging.getLogger(__name__)

FORMAT = "inventory 1"
MAX_EXAMPLES = 3
"""Pairs of copies that are listed by name."""
BLOCK_SIZE = 32
"""Images that a thread decodes before it checks for cancellation."""

Splits = Mapping[str, Samples]


class InventoryTaker:
    """Takes the inventory of one source, and remembers it in a folder, by names, sizes and modification times."""

    def __init__(self, source: Source, *, name: str, validation: float, seed: int, cache: Path | None = None) -> None:
        """`name`: kind and place of the data, for display. The study's `validation` and `seed` determine what is held
        out. `cache`: the folder; None: nothing is remembered on disk."""
        self._source, self._name, self._cache = source, name, cache
        self._splits = dict(_splits(source, validation, seed))
        self._stamp = None if cache is None else _stamp(source, self._splits)
        self._taken: Inventory | None = None

    def take(self, *, sample: int | None = None, contents: bool = False) -> Inventory:
        """The inventory, with the test data verified: all of them, or `sample` of them, evenly spread.

        `contents`: with the digests of all splits; contents that were not hashed while they were decoded are read.
        Otherwise a split has a digest if it is known already. Raises DataError.
        """
        if sample is not None:
            return _build(self._source, self._name, self._splits, sample)
        if self._cache is None:
            self._taken = self._complete(contents)
            return self._taken
        with exclusive(self._cache.parent, ".inventory.lock"):
            stored = load(self._cache, self._stamp) if self._stamp else None
            self._taken = stored or self._taken
            self._taken = self._complete(contents)
            if self._stamp and self._taken != stored:
                save(self._taken, self._cache, self._stamp)
        return self._taken

    def _complete(self, contents: bool) -> Inventory:
        found = self._taken or _build(self._source, self._name, self._splits, None)
        splits = tuple(_with_digest(split, self._splits[split.name], contents) for split in found.splits)
        return replace(found, splits=splits)


def check_unchanged(split: str, samples: Samples, inventory: Inventory) -> None:
    """Raises DataError if the samples of a split, which were just read, are not those of an inventory."""
    known = next(each for each in inventory.splits if each.name == split)
    if samples.listing is None or (samples.listing.stamp and samples.listing.stamp == known.listing):
        return
    if known.digest is not None and split_digest(samples) != known.digest:
        raise DataError(f"{samples.origin}: the {split} {inventory.unit} changed since this process verified them")


def _with_digest(known: SplitInventory, samples: Samples, contents: bool) -> SplitInventory:
    listing = samples.listing
    if known.digest or listing is None or not (contents or listing.contents.known(samples.rows)):
        return known
    return replace(known, digest=split_digest(samples))


def _splits(source: Source, validation: float, seed: int) -> Iterator[tuple[str, Samples]]:
    """The splits as trials use them: train does not include what is held out of it for validation."""
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
    """A hash of everything that determines the inventory; None if changes of a split cannot be detected."""
    text = "|".join([FORMAT, *source.classes, *map(str, _skipped(source, splits))])
    total = hashlib.sha256(text.encode(errors="backslashreplace"))
    for name, samples in splits.items():
        if samples.listing is None or samples.listing.stamp is None:
            return None
        total.update(f"|{name}|{samples.listing.stamp}|".encode())
        for numbers in (samples.rows, samples.labels):
            total.update(numbers.astype("<i8").tobytes())
    return total.hexdigest()


def _build(source: Source, name: str, splits: Splits, sample: int | None) -> Inventory:
    inventories = {split: _split_inventory(split, samples, len(source.classes)) for split, samples in splits.items()}
    shape = _shape(splits)
    verified = _verify(splits["test"], shape, sample)
    return Inventory(
        source=one_line(name),
        classes=tuple(map(one_line, source.classes)),
        splits=tuple(inventories.values()),
        skipped=_skipped(source, splits),
        duplicates=None if sample is not None else _duplicates(splits),
        verified=verified,
    )


def _skipped(source: Source, splits: Splits) -> tuple[Skipped, ...]:
    """Each once, since held-out validation and train share their files. Names are escaped for display."""
    every = [*source.skipped, *(each for samples in splits.values() for each in samples.skipped)]
    shown = (replace(each, group=one_line(each.group), what=one_line(each.what)) for each in every)
    return tuple(dict.fromkeys(shown))


def _split_inventory(split: str, samples: Samples, classes: int) -> SplitInventory:
    counts = np.bincount(samples.labels, minlength=classes).tolist()
    listing = samples.listing.stamp if samples.listing else None
    return SplitInventory(split, one_line(samples.origin), tuple(counts), listing)


# ---------------------------------------------------------------- verifying the test data


def _shape(splits: Splits) -> tuple[int, ...]:
    """(C, H, W) of the training images, by the first one. Raises DataError if the first one of validation differs."""
    for name, samples in splits.items():
        if not len(samples):
            raise DataError(f"data: the {name} split has no image of the classes in data.classes")
    train, validation = (splits[name].take(np.arange(1)).load().shape[1:] for name in ("train", "validation"))
    if validation != train:
        raise DataError(f"validation images have shape {validation}, training images {train} (C, H, W)")
    return train


def _verify(test: Samples, shape: tuple[int, ...], sample: int | None) -> int:
    """The number of decoded test images. Raises DataError, naming all that cannot be decoded or have another shape."""
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
    """The problems of all images; several threads decode them."""

    def check_block(block: Rows) -> list[Problem]:
        return [problem for row in block for problem in _problem(test, np.array([row]), shape)]

    blocks = np.array_split(rows, -(-len(rows) // BLOCK_SIZE))
    with ThreadPoolExecutor(available_cores()) as pool:
        try:
            return [problem for found in pool.map(check_block, blocks) for problem in found]
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, start no further block


def _problem(test: Samples, rows: Rows, shape: tuple[int, ...]) -> list[Problem]:
    try:
        return _misfits(test, rows, shape)
    except DataError as error:
        return [(int(rows[0]), str(error))]


def _misfits(test: Samples, rows: Rows, shape: tuple[int, ...]) -> list[Problem]:
    found = test.read(rows).shape[1:]
    if found == shape:
        return []
    return [(int(rows[0]), f"test images have shape {found}, training images {shape} (C, H, W)")]


# ---------------------------------------------------------------- exact copies


def _duplicates(splits: Splits) -> tuple[Duplicates, ...] | None:
    """Exact copies across splits: sizes are compared first, then hashes. None if contents cannot be compared."""
    names, parts = list(splits), list(splits.values())
    if any(part.listing is None or not part.listing.separate for part in parts):
        return None
    split_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    if all(part.listing and part.listing.sizes is not None for part in parts):
        sizes = np.concatenate([part.listing.sizes[part.rows] for part in parts if part.listing])  # type: ignore[index]
        split_of, rows = _shared(sizes, split_of, rows)
        keys = _digests(parts, split_of, rows, quick=True)
        split_of, rows = _shared(keys, split_of, rows)
    keys = _digests(parts, split_of, rows, quick=False)
    pairs = (_copies(names, parts, keys, split_of, rows, *pair) for pair in combinations(range(len(parts)), 2))
    return tuple(found for found in pairs if found)


def _shared(keys: NDArray[np.generic], split_of: Rows, rows: Rows) -> tuple[Rows, Rows]:
    """The rows whose key occurs in more than one split, and their splits."""
    _, key_index = np.unique(keys, return_inverse=True)
    splits = np.zeros(key_index.max(initial=-1) + 1, dtype=np.int64)
    np.bitwise_or.at(splits, key_index, 1 << split_of)
    several = (splits & (splits - 1) != 0)[key_index]
    return split_of[several], rows[several]


def _digests(parts: Sequence[Samples], split_of: Rows, rows: Rows, *, quick: bool) -> NDArray[np.uint64]:
    found = np.zeros(len(rows), dtype=np.uint64)
    listings = {id(part.listing): part.listing for part in parts}  # splits that share an array read it once
    for listing in listings.values():
        members = np.isin(split_of, [number for number, part in enumerate(parts) if part.listing is listing])
        if members.any() and listing:
            hashes = listing.quick if quick and listing.quick else listing.contents.of
            found[members] = hashes(rows[members])
    return found


def _copies(
    names: Sequence[str],
    parts: Sequence[Samples],
    keys: NDArray[np.uint64],
    split_of: Rows,
    rows: Rows,
    one: int,
    other: int,
) -> Duplicates | None:
    """The samples of the split `other` that equal one of the split `one`; None if there are none."""
    in_one, in_other = split_of == one, split_of == other
    first = dict(zip(keys[in_one].tolist()[::-1], rows[in_one].tolist()[::-1], strict=True))
    copies = [(int(row), first[key]) for key, row in zip(keys[in_other].tolist(), rows[in_other], strict=True)
              if key in first]  # fmt: skip
    if not copies:
        return None
    examples = tuple((_name(parts[other], row), _name(parts[one], same)) for row, same in copies[:MAX_EXAMPLES])
    return Duplicates(names[other], names[one], len(copies), examples)


def _name(samples: Samples, row: int) -> str:
    return one_line(samples.listing.names(row)) if samples.listing else str(row)
