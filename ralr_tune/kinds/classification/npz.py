"""One .npz file with train_images, train_labels, test_images, test_labels and optionally classes.

The header of an array gives its dtype and shape. Both are checked first, so that an array of a wrong dtype or an
impossible size is never decompressed. Nothing is unpickled.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.samples import (
    MAX_CLASSES,
    Images,
    Samples,
    Source,
    all_samples,
    listed,
    short_reason,
    stamp,
)
from ralr_tune.kinds.classification.stratify import Rows
from ralr_tune.machine.memory import check_memory
from ralr_tune.studyfile.problems import cut

REQUIRED = ("train_images", "train_labels", "test_images", "test_labels")
MAX_CHANNELS = 16
"""With more than this, the axes are probably in another order."""
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


def read(path: str) -> Source:
    """The data set in the file `path`; nothing in it is unpickled.

    Images are uint8 (N, H, W) or (N, H, W, C), labels integers (N,) from 0, `classes` (K,) strings. Raises DataError
    if an array is missing, has another dtype or shape or is too large, or if a label is out of range. The test arrays
    are read on first request.
    """
    file = Path(path).expanduser()
    names = _members(file)
    if missing := [name for name in REQUIRED if name not in names]:
        raise DataError(f"{file}: {', '.join(missing)} missing; the file contains {listed(sorted(names)) or 'nothing'}")
    labels = _labels(file, "train")
    classes = _classes(file) if "classes" in names else _numbered_classes(file, labels)
    return Source(
        classes,
        train=_samples(file, "train", labels, classes),
        test=lambda: _samples(file, "test", _labels(file, "test"), classes),
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


def _labels(file: Path, split: str) -> Rows:
    def fits(labels: _ArrayHeader) -> bool:
        return len(labels.shape) == 1 and labels.shape[0] >= 1 and labels.dtype.kind in "iu"

    return _array(file, f"{split}_labels", fits, "integers (N,), N >= 1").astype(np.int64)


def _classes(file: Path) -> tuple[str, ...]:
    def fits(classes: _ArrayHeader) -> bool:
        short = classes.dtype.itemsize <= MAX_NAME_LENGTH * np.dtype("U1").itemsize
        return len(classes.shape) == 1 and 1 <= classes.shape[0] <= MAX_CLASSES and classes.dtype.kind in "US" and short

    wanted = f"strings (K,), K <= {MAX_CLASSES}, of at most {MAX_NAME_LENGTH} characters"
    names = _array(file, "classes", fits, wanted)
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names)


def _numbered_classes(file: Path, labels: Rows) -> tuple[str, ...]:
    if labels.max() >= MAX_CLASSES:
        raise DataError(f"{file}: train_labels go up to {labels.max()}; allowed: below {MAX_CLASSES}")
    return tuple(str(number) for number in range(int(labels.max()) + 1))


def _samples(file: Path, split: str, labels: Rows, classes: tuple[str, ...]) -> Samples:
    if labels.min() < 0 or labels.max() >= len(classes):
        raise DataError(
            f"{file}: {split}_labels go from {labels.min()} to {labels.max()}; allowed: 0 to {len(classes) - 1}"
        )
    return all_samples(labels, partial(_load, file, split, len(labels)), stamp=f"npz|{split}|{stamp([file])}")


def _load(file: Path, split: str, expected: int, rows: Rows) -> Images:
    def fits(images: _ArrayHeader) -> bool:
        shape = images.shape
        return (
            images.dtype == np.uint8
            and len(shape) in (3, 4)
            and shape[0] == expected
            and min(shape) >= 1
            and (len(shape) == 3 or shape[3] <= MAX_CHANNELS)
        )

    wanted = (
        f"uint8 (N, H, W) or (N, H, W, C), N = {expected} as in the labels, channels last, 1 <= C <= {MAX_CHANNELS}"
    )
    images = _array(file, f"{split}_images", fits, wanted)
    images = images[..., None] if images.ndim == 3 else images
    return images[rows].transpose(0, 3, 1, 2)
