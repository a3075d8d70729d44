"""One .npz file with train_images, train_labels, test_images, test_labels[, val_images, val_labels, classes].

Splits are recognised by their usual names (see layout.py). The classes are those of train, as with class folders.

The header of an array gives its dtype and shape. Both are checked first, so that an array of a wrong dtype or an
impossible size is never decompressed. Nothing is unpickled.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError
from ralr_tune.images.files import Images, listed, short_reason, stamp
from ralr_tune.images.layout import SplitName, split_of
from ralr_tune.kinds.classification.samples import (
    MAX_CLASSES,
    Contents,
    Listing,
    Samples,
    Source,
    all_samples,
    digests_of,
)
from ralr_tune.kinds.classification.stratify import Rows
from ralr_tune.machine.memory import check_memory
from ralr_tune.records import Skipped
from ralr_tune.studyfile.problems import cut

REQUIRED = ("train_images", "train_labels", "test_images", "test_labels")
PARTS = ("images", "labels")
CLASSES = "classes"
MAX_CHANNELS = 16
"""If there are more, the axes are probably in another order."""
MAX_USUAL_CHANNELS = 4
"""Grey, grey with alpha, colour, colour with alpha."""
MAX_NAME_LENGTH = 1000
"""Characters of a class name."""


class _ArrayHeader(NamedTuple):
    """The header of an array."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return cut(f"{self.dtype} {self.shape}", 80)


Fits = Callable[[_ArrayHeader], bool]

Axes = Literal["NHWC", "NCHW"]


def read(path: str, *, layout: Axes | None = None) -> Source:
    """The data set in the file `path`; nothing in it is unpickled.

    Images are uint8 (N, H, W) or (N, H, W, C), with `layout` "NCHW" (N, C, H, W); labels integers (N,) or (N, 1);
    `classes` (K,) strings, indexed by the labels from 0. Without `classes` the numbers that occur in train are the
    classes. Raises DataError if an array is missing, of another type or shape, or too large, or if a label is out of
    range. The test arrays are read only when `Source.test` is called.
    """
    file = Path(path).expanduser()
    members = _members(file)
    splits, ignored = _splits(file, members)
    labels = _labels(file, splits["train"])
    given = _classes(file) if CLASSES in members else None
    numbers = np.arange(len(given)) if given else _occurring(file, labels)
    classes = given or tuple(str(number) for number in numbers)
    samples = partial(_samples, file, numbers=numbers, classes=classes, layout=layout)
    validation = splits.get("validation")
    return Source(
        classes,
        train=samples(splits["train"]),
        test=lambda: samples(splits["test"]),
        validation=None if validation is None else samples(validation),
        skipped=tuple(Skipped("", "", name, "not read", 0) for name in ignored),
        every_class=(str(file), "allowed: numbers of classes that occur in train"),
    )


def _members(file: Path) -> list[str]:
    try:
        if file.exists() and not file.is_file():
            raise ValueError("not a file")  # opening a pipe could block forever
        with zipfile.ZipFile(file) as members:
            return [name.removesuffix(".npy") for name in members.namelist()]
    except FileNotFoundError:
        raise DataError(f"data.path = {str(file)!r}: no such file (resolved to {file.absolute()})") from None
    except Exception as error:  # zipfile raises errors of many types for damaged bytes
        raise DataError(f"data.path = {str(file)!r}: not an .npz file: {short_reason(error)}") from error


def _splits(file: Path, members: Sequence[str]) -> tuple[dict[SplitName, str], list[str]]:
    """Each split's prefix, such as "val" of val_images and val_labels, and the arrays that belong to none."""
    found: dict[SplitName, str] = {}
    used = {CLASSES}
    for name in members:
        prefix, _, part = name.rpartition("_")
        split = split_of(prefix)
        if part not in PARTS or split is None:
            continue
        if found.setdefault(split, prefix) != prefix:
            raise DataError(f"{file}: {found[split]}_{part} and {name} name the same split; remove one of them")
        used.add(name)
    prefixes = {"train": "train", "test": "test"} | found
    wanted = [f"{prefix}_{part}" for prefix in prefixes.values() for part in PARTS]
    if missing := [name for name in wanted if name not in members]:
        raise DataError(f"{file}: {', '.join(missing)} missing; it contains {listed(sorted(members)) or 'nothing'}")
    return found, [name for name in members if name not in used]


def _array(file: Path, name: str, fits: Fits, wanted: str) -> NDArray[Any]:
    """The array `name`. Raises DataError, without reading the data, if its header does not satisfy `fits`."""
    header = _readable(file, name, _read_header)
    if not fits(header):
        raise DataError(f"{file}: {name} is {header}; must be {wanted}")
    check_memory(header.size_bytes, f"{file}: {name} is {header}")
    array: NDArray[Any] = _readable(file, name, partial(np.lib.format.read_array, allow_pickle=False))
    return array


def _readable(file: Path, name: str, read_from: Callable[[IO[bytes]], Any]) -> Any:
    try:
        with zipfile.ZipFile(file) as members, members.open(f"{name}.npy") as stream:
            return read_from(stream)
    except Exception as error:  # from zipfile, zlib, lzma, numpy, ast, ...: no common base class
        raise DataError(f"{file}: {name} cannot be read: {short_reason(error)}") from error


def _read_header(stream: IO[bytes]) -> _ArrayHeader:
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):  # other versions are for record types; their headers may be 4 GB long
        raise ValueError(f"format version {version}; allowed: (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return _ArrayHeader(dtype, shape)


def _labels(file: Path, prefix: str) -> Rows:
    def fits(labels: _ArrayHeader) -> bool:
        column = len(labels.shape) == 1 or labels.shape[1:] == (1,)
        return bool(labels.shape) and column and labels.shape[0] >= 1 and labels.dtype.kind in "iu"

    return _array(file, f"{prefix}_labels", fits, "integers (N,) or (N, 1), N >= 1").astype(np.int64).reshape(-1)


def _classes(file: Path) -> tuple[str, ...]:
    def fits(classes: _ArrayHeader) -> bool:
        short = classes.dtype.itemsize <= MAX_NAME_LENGTH * np.dtype("U1").itemsize
        return len(classes.shape) == 1 and 1 <= classes.shape[0] <= MAX_CLASSES and classes.dtype.kind in "US" and short

    wanted = f"strings (K,), K <= {MAX_CLASSES}, of at most {MAX_NAME_LENGTH} characters"
    names = _array(file, "classes", fits, wanted)
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names)


def _occurring(file: Path, labels: Rows) -> Rows:
    """The numbers that occur, sorted, so that gaps and a first label of 1 create no empty classes."""
    if labels.max() >= MAX_CLASSES:
        raise DataError(f"{file}: train_labels go up to {labels.max()}; allowed: below {MAX_CLASSES}")
    if labels.min() < 0:
        raise DataError(f"{file}: train_labels go from {labels.min()} to {labels.max()}; allowed: from 0")
    return np.unique(labels)


def _renumbered(labels: Rows, numbers: Rows, file: Path, name: str) -> Rows:
    """Labels as positions in `numbers`, which are sorted. Raises DataError for a label that is not in `numbers`."""
    places = np.searchsorted(numbers, labels).clip(max=len(numbers) - 1)
    if (numbers[places] == labels).all():
        return places
    if numbers[-1] + 1 == len(numbers):
        raise DataError(f"{file}: {name} go from {labels.min()} to {labels.max()}; allowed: 0 to {len(numbers) - 1}")
    unknown = np.setdiff1d(labels, numbers).tolist()
    raise DataError(f"{file}: {name} contain {listed([*map(str, unknown)])}; allowed: labels that occur in train")


def _samples(file: Path, prefix: str, *, numbers: Rows, classes: Sequence[str], layout: Axes | None) -> Samples:
    labels = _renumbered(_labels(file, prefix), numbers, file, f"{prefix}_labels")
    known = stamp([file])
    load = partial(_images, file, prefix, len(labels), layout)

    contents = Contents(len(labels), lambda rows: digests_of(load(), rows))

    def read(rows: Rows) -> Images:
        images = load()
        contents.add(rows, digests_of(images, rows))
        return images[rows]

    return all_samples(
        labels,
        read,
        stamp=f"npz|{prefix}|{known}|{layout or 'NHWC'}",
        listing=Listing(known, lambda row: f"{prefix}_images[{row}]", contents),
        origin=f"{file.name}: {prefix}_images",
    )


def _images(file: Path, prefix: str, expected: int, layout: Axes | None) -> Images:
    """(N, C, H, W)."""
    channels = 1 if layout == "NCHW" else 3

    def fits(images: _ArrayHeader) -> bool:
        shape = images.shape
        return (
            images.dtype == np.uint8
            and len(shape) in (3, 4)
            and shape[0] == expected
            and min(shape) >= 1
            and (len(shape) == 3 or shape[channels] <= MAX_CHANNELS)
            and (layout is not None or not _is_channels_first(shape))
        )

    axes = "(N, C, H, W)" if layout == "NCHW" else "(N, H, W, C)"
    order = "channels first" if layout == "NCHW" else "channels last"
    hint = "" if layout else ' (data.layout = "NCHW" reads channels first)'
    wanted = f"uint8 (N, H, W) or {axes}, N = {expected} as in the labels, {order}, 1 <= C <= {MAX_CHANNELS}{hint}"
    images = _array(file, f"{prefix}_images", fits, wanted)
    if images.ndim == 3:
        return images[:, None]
    return images if layout == "NCHW" else images.transpose(0, 3, 1, 2)


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether (N, A, B, C) is clearly channels first: A is small, and either C is too large for channels, or B and C
    are the sides of a square."""
    if len(shape) < 4:
        return False
    _, first, second, last = shape
    return first <= MAX_USUAL_CHANNELS and first < min(second, last) and (last > MAX_USUAL_CHANNELS or second == last)
