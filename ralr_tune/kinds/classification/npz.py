"""One .npz file with train_images, train_labels, test_images, test_labels and perhaps classes.

An array says its type and shape before its data. Both are looked at first, so that nothing of a wrong kind or of an
impossible size is ever decompressed; nothing is unpickled.
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
from ralr_tune.kinds.classification.samples import MOST_CLASSES, Images, Samples, Source, all_samples, some, stamp, why
from ralr_tune.kinds.classification.stratify import Rows
from ralr_tune.machine.memory import check_memory
from ralr_tune.studyfile.problems import cut

REQUIRED = ("train_images", "train_labels", "test_images", "test_labels")
MOST_CHANNELS = 16
"""More than this, and the axes are probably in another order."""
LONGEST_NAME = 1000
"""Characters of a class's name."""


class _Declared(NamedTuple):
    """What an array's header says of it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return cut(f"{self.dtype} {self.shape}", 80)


Fits = Callable[[_Declared], bool]


def read(path: str) -> Source:
    """The data set in the file `path`; nothing in it is unpickled.

    Images are uint8 (N, H, W) or (N, H, W, C), labels integers (N,) from 0, `classes` (K,) strings. Raises DataError
    when an array is missing, of another type or shape, too large, or a label out of range. The test arrays are read
    when asked for.
    """
    file = Path(path).expanduser()
    names = _members(file)
    if missing := [name for name in REQUIRED if name not in names]:
        raise DataError(f"{file}: lacks {', '.join(missing)}; it holds {some(sorted(names)) or 'nothing'}")
    labels = _labels(file, "train")
    classes = _classes(file) if "classes" in names else _numbered(file, labels)
    return Source(
        classes,
        train=_samples(file, "train", labels, classes),
        test=lambda: _samples(file, "test", _labels(file, "test"), classes),
    )


def _members(file: Path) -> list[str]:
    try:
        if file.exists() and not file.is_file():
            raise ValueError("not a file")  # nobody may ever write into a pipe
        with zipfile.ZipFile(file) as members:
            return [name.removesuffix(".npy") for name in members.namelist()]
    except FileNotFoundError:
        raise DataError(f"data.path = {str(file)!r}: no such file (looked at {file.absolute()})") from None
    except Exception as error:  # zipfile raises what it meets in damaged bytes
        raise DataError(f"data.path = {str(file)!r}: not an .npz file: {why(error)}") from error


def _array(file: Path, name: str, fits: Fits, wanted: str) -> NDArray[Any]:
    """The array `name`, if what its header says fits."""
    declared = _readable(file, name, _declared)
    if not fits(declared):
        raise DataError(f"{file}: {name} is {declared}; must be {wanted}")
    check_memory(declared.size_bytes, f"{file}: {name} is {declared}")
    array: NDArray[Any] = _readable(file, name, partial(np.lib.format.read_array, allow_pickle=False))
    return array


def _readable(file: Path, name: str, read_from: Callable[[IO[bytes]], Any]) -> Any:
    try:
        with zipfile.ZipFile(file) as members, members.open(f"{name}.npy") as stream:
            return read_from(stream)
    except Exception as error:  # of zipfile, zlib, lzma, numpy, ast, ...: they share no base
        raise DataError(f"{file}: {name} cannot be read: {why(error)}") from error


def _declared(stream: IO[bytes]) -> _Declared:
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):  # the others are for record types; their headers may be 4 GB long
        raise ValueError(f"version {version} of the format; allowed: (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return _Declared(dtype, shape)


def _labels(file: Path, split: str) -> Rows:
    def fits(labels: _Declared) -> bool:
        return len(labels.shape) == 1 and labels.shape[0] >= 1 and labels.dtype.kind in "iu"

    return _array(file, f"{split}_labels", fits, "integers (N,), N >= 1").astype(np.int64)


def _classes(file: Path) -> tuple[str, ...]:
    def fits(classes: _Declared) -> bool:
        short = classes.dtype.itemsize <= LONGEST_NAME * np.dtype("U1").itemsize
        return (
            len(classes.shape) == 1 and 1 <= classes.shape[0] <= MOST_CLASSES and classes.dtype.kind in "US" and short
        )

    wanted = f"strings (K,), K <= {MOST_CLASSES}, of at most {LONGEST_NAME} characters"
    names = _array(file, "classes", fits, wanted)
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names)


def _numbered(file: Path, labels: Rows) -> tuple[str, ...]:
    if labels.max() >= MOST_CLASSES:
        raise DataError(f"{file}: train_labels go up to {labels.max()}; allowed: below {MOST_CLASSES}")
    return tuple(str(number) for number in range(int(labels.max()) + 1))


def _samples(file: Path, split: str, labels: Rows, classes: tuple[str, ...]) -> Samples:
    if labels.min() < 0 or labels.max() >= len(classes):
        raise DataError(
            f"{file}: {split}_labels go from {labels.min()} to {labels.max()}; allowed: 0 to {len(classes) - 1}"
        )
    return all_samples(labels, partial(_load, file, split, len(labels)), stamp=f"npz|{split}|{stamp([file])}")


def _load(file: Path, split: str, expected: int, rows: Rows) -> Images:
    def fits(images: _Declared) -> bool:
        shape = images.shape
        return (
            images.dtype == np.uint8
            and len(shape) in (3, 4)
            and shape[0] == expected
            and min(shape) >= 1
            and (len(shape) == 3 or shape[3] <= MOST_CHANNELS)
        )

    wanted = (
        f"uint8 (N, H, W) or (N, H, W, C), N = {expected} as in the labels, channels last, 1 <= C <= {MOST_CHANNELS}"
    )
    images = _array(file, f"{split}_images", fits, wanted)
    images = images[..., None] if images.ndim == 3 else images
    return images[rows].transpose(0, 3, 1, 2)
