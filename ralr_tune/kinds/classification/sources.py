"""Opens the images that a study file's `data` table describes as a `Source`. Independent of devices and batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.samples import (
    Contents,
    Listing,
    Source,
    all_samples,
    check_every_class,
    digests_of,
    restrict,
    with_test_split_from_train,
)

RESTRICTIONS = ("limit", "classes")
"""Options of every source (see `samples.restrict`)."""


@dataclass(frozen=True)
class Reader:
    """The function that reads one kind of source, and its required and optional options."""

    read: Callable[..., Source]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def open_source(data: Mapping[str, Any]) -> Source:
    """The data set that `data` describes: `source`, the options of that source, `limit` and `classes`.

    None means that an option is not given. Reads labels, not images. Raises DataError, naming option, value and what is
    allowed.
    """
    given = {key: value for key, value in data.items() if value is not None}
    name = given.pop("source", None)
    if name not in READERS:
        raise DataError(f"data.source = {name!r}: allowed: {', '.join(READERS)}")
    _check(name, given)
    restrictions = {key: given.pop(key, None) for key in RESTRICTIONS}
    source = restrict(READERS[name].read(**given), **restrictions)
    check_every_class(source)
    return source


def _check(name: str, given: Mapping[str, Any]) -> None:
    reader = READERS[name]
    allowed = (*reader.required, *reader.optional, *RESTRICTIONS)
    if unknown := sorted(set(given) - set(allowed)):
        raise DataError(f"data.{unknown[0]}: not an option of source {name!r}; allowed: {', '.join(allowed)}")
    if missing := sorted(set(reader.required) - set(given)):
        raise DataError(f"data.{missing[0]}: missing; source {name!r} needs it")
    for key in ("limit", "size", "max_pixels"):
        value = given.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DataError(f"data.{key} = {value!r}: must be an integer, at least 1")


def read_digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8x8, grey values 0 .. 16 scaled to 0 .. 255."""
    table = _digits_table()
    images = np.rint(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    contents = Contents(len(images), lambda rows: digests_of(images, rows))
    listing = Listing(None, lambda row: f"digit {row}", contents)
    samples = all_samples(
        table[:, -1].astype(np.int64), lambda rows: images[rows], listing=listing, origin="scikit-learn's digits"
    )
    return with_test_split_from_train(tuple(str(digit) for digit in range(10)), samples, where="digits")


def _digits_table() -> NDArray[np.float64]:
    """(1797, 65): 64 grey values and the label, from scikit-learn's file.

    Not by importing scikit-learn: that imports scipy.stats and took a fifth of a worker's start-up time.
    """
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])


def _torchvision(**options: Any) -> Source:
    from ralr_tune.kinds.classification import torchvision_sets

    return torchvision_sets.read(**options)


def _folder(**options: Any) -> Source:
    from ralr_tune.kinds.classification import folder

    return folder.read(**options)


def _arrays(**options: Any) -> Source:
    from ralr_tune.kinds.classification import npz

    return npz.read(**options)


READERS: Mapping[str, Reader] = {
    "digits": Reader(read_digits),
    "torchvision": Reader(_torchvision, required=("dataset",), optional=("root", "download", "size", "max_pixels")),
    "folder": Reader(_folder, required=("path",), optional=("size", "max_pixels")),
    "arrays": Reader(_arrays, required=("path",), optional=("layout",)),
}
"""Readers by `data.source`."""
