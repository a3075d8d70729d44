"""Class folders of images: PATH/train/CLASS/*.jpg with test/ and perhaps val/ beside train/, or PATH/CLASS/*.jpg."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from ralr_tune.errors import DataError
from ralr_tune.tasks.pictures import stack
from ralr_tune.tasks.samples import Images, Samples, Source, all_samples, with_own_test_split
from ralr_tune.tasks.stratify import Rows

VALIDATION_NAMES = ("val", "valid", "validation")


def read(path: str, *, size: int | None = None) -> Source:
    """The data set under `path`. The class list is train's; files below test/ are opened when its images are loaded.

    Raises DataError when a folder is missing or empty, or when val/ or test/ has a class that train/ lacks.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"data.path = {path!r}: no such folder (looked at {root.absolute()})")
    if not (root / "train").is_dir():
        classes = _class_names(root)
        return with_own_test_split(classes, _tree(root, classes, size), where=f"data.path = {path!r}")
    classes = _class_names(root / "train")
    test = root / "test"
    _check_classes(test, classes)
    own = next((root / name for name in VALIDATION_NAMES if (root / name).is_dir()), None)
    return Source(
        classes,
        train=_full_tree(root / "train", classes, size),
        test=lambda: _tree(test, classes, size),
        validation=None if own is None else _tree(own, classes, size),
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    names = _folders(folder)
    if len(names) < 2:
        raise DataError(f"{folder}: must hold a folder of images for each of two or more classes; holds {names}")
    return tuple(names)


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _check_classes(folder: Path, classes: tuple[str, ...]) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: missing; beside train/ there must be test/, with the same class folders")
    if strange := sorted(set(_folders(folder)) - set(classes)):
        allowed = ", ".join(classes)
        raise DataError(f"{folder}: holds classes that train/ lacks: {', '.join(strange)}; allowed: {allowed}")


def _full_tree(folder: Path, classes: tuple[str, ...], size: int | None) -> Samples:
    samples = _tree(folder, classes, size)
    counts = np.bincount(samples.labels, minlength=len(classes))
    if empty := [name for name, count in zip(classes, counts, strict=True) if count == 0]:
        raise DataError(f"{folder}: no images for the classes {', '.join(empty)}; allowed: {', '.join(IMG_EXTENSIONS)}")
    return samples


def _tree(folder: Path, classes: tuple[str, ...], size: int | None) -> Samples:
    _check_classes(folder, classes)
    numbers = {name: number for number, name in enumerate(classes)}
    found = make_dataset(folder, numbers, extensions=IMG_EXTENSIONS, allow_empty=True)
    if not found:
        raise DataError(f"{folder}: holds no images; allowed: {', '.join(IMG_EXTENSIONS)}")
    files = [file for file, _ in found]
    return all_samples(np.array([label for _, label in found]), partial(_load, folder, files, size))


def _load(folder: Path, files: list[str], size: int | None, rows: Rows) -> Images:
    pictures = _pictures((files[row] for row in rows), size)
    return stack(pictures, count=len(rows), mode="RGB", size=size, where=str(folder))


def _pictures(files: Iterator[str], size: int | None) -> Iterator[Image.Image]:
    for file in files:
        try:
            with Image.open(file) as picture:
                if size is not None:
                    picture.draft("RGB", (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
                yield ImageOps.exif_transpose(picture).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all that Pillow raises
            raise DataError(f"{file}: not a readable image: {error}") from error
