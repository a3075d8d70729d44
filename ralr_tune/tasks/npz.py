"""One .npz file with train_images, train_labels, test_images, test_labels and perhaps classes."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError
from ralr_tune.tasks.samples import Images, Samples, Source, all_samples
from ralr_tune.tasks.stratify import Rows

REQUIRED = ("train_images", "train_labels", "test_images", "test_labels")
MOST_CHANNELS = 16
"""More than this, and the axes are probably in another order."""


def read(path: str) -> Source:
    """The data set in the file `path`; nothing in it is unpickled.

    Images are uint8 (N, H, W) or (N, H, W, C), labels integers (N,) from 0, `classes` (K,) strings. Raises DataError
    when an array is missing, of another type or shape, or a label out of range. The test arrays are read when asked
    for.
    """
    file = Path(path).expanduser()
    names = _members(file)
    if missing := [name for name in REQUIRED if name not in names]:
        raise DataError(f"{file}: lacks {', '.join(missing)}; it holds {', '.join(sorted(names)) or 'nothing'}")
    labels = _labels(file, "train")
    classes = _classes(file, labels) if "classes" in names else tuple(str(n) for n in range(int(labels.max()) + 1))
    return Source(
        classes,
        train=_samples(file, "train", labels, classes),
        test=lambda: _samples(file, "test", _labels(file, "test"), classes),
    )


def _members(file: Path) -> list[str]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return list(arrays.files)
    except FileNotFoundError:
        raise DataError(f"data.path = {str(file)!r}: no such file (looked at {file.absolute()})") from None
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:  # TypeError: a lone .npy
        raise DataError(f"data.path = {str(file)!r}: not an .npz file: {error}") from error


def _array(file: Path, name: str) -> NDArray[Any]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            array: NDArray[Any] = arrays[name]
            return array
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: {name} cannot be read: {error}") from error


def _labels(file: Path, split: str) -> Rows:
    labels = _array(file, f"{split}_labels")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise DataError(f"{file}: {split}_labels is {_shown(labels)}; must be integers (N,), N >= 1")
    return labels.astype(np.int64)


def _classes(file: Path, labels: Rows) -> tuple[str, ...]:
    classes = _array(file, "classes")
    if classes.ndim != 1 or classes.dtype.kind not in "US":
        raise DataError(f"{file}: classes is {_shown(classes)}; must be strings (K,)")
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in classes)


def _samples(file: Path, split: str, labels: Rows, classes: tuple[str, ...]) -> Samples:
    if labels.min() < 0 or labels.max() >= len(classes):
        raise DataError(
            f"{file}: {split}_labels go from {labels.min()} to {labels.max()}; allowed: 0 to {len(classes) - 1}"
        )
    return all_samples(labels, partial(_load, file, split, len(labels)))


def _load(file: Path, split: str, expected: int, rows: Rows) -> Images:
    images = _array(file, f"{split}_images")
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != expected:
        raise DataError(
            f"{file}: {split}_images is {_shown(images)}; must be uint8 (N, H, W) or (N, H, W, C)"
            f", N = {expected} as in the labels"
        )
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[3] > MOST_CHANNELS:
        raise DataError(
            f"{file}: {split}_images is {_shown(images)}; must be (N, H, W, C), channels last, C <= {MOST_CHANNELS}"
        )
    return images[rows].transpose(0, 3, 1, 2)


def _shown(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
