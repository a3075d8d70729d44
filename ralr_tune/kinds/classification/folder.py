"""Class folders of images: PATH/train/CLASS/*.jpg with test/ and optionally val/ next to it, or PATH/CLASS/*.jpg."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.pictures import check_pixels, stack
from ralr_tune.kinds.classification.samples import (
    MAX_CLASSES,
    Images,
    Samples,
    Source,
    all_samples,
    listed,
    short_reason,
    stamp,
    with_own_test_split,
)
from ralr_tune.kinds.classification.stratify import Rows
from ralr_tune.studyfile.problems import one_line

VALIDATION_NAMES = ("val", "valid", "validation")

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "PPM", "TIFF", "GIF")
"""Formats that Pillow may decode. It detects them by content, not by name, and starts other programs for some (EPS)."""


def read(path: str, *, size: int | None = None) -> Source:
    """The data set under `path`, with the classes of train/. Files below test/ are opened when its images are loaded.

    Raises DataError if a folder is missing or empty, or if val/ or test/ has a class that train/ does not have.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"data.path = {path!r}: no such folder (resolved to {root.absolute()})")
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
    if not 2 <= len(names) <= MAX_CLASSES:
        found = f"{len(names)} folders" if names else "none"
        raise DataError(f"{folder}: needs a folder of images for each of 2 to {MAX_CLASSES} classes; found {found}")
    return tuple(names)


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _check_classes(folder: Path, classes: tuple[str, ...]) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: missing; a folder with train/ also needs test/, with the same class folders")
    if unknown := sorted(set(_folders(folder)) - set(classes)):
        raise DataError(
            f"{folder}: has classes that train/ does not have: {listed(unknown)}; allowed: {listed(classes)}"
        )


def _full_tree(folder: Path, classes: tuple[str, ...], size: int | None) -> Samples:
    samples = _tree(folder, classes, size)
    counts = np.bincount(samples.labels, minlength=len(classes))
    if empty := [name for name, count in zip(classes, counts, strict=True) if count == 0]:
        raise DataError(f"{folder}: no images for the classes {listed(empty)}; allowed: {', '.join(IMG_EXTENSIONS)}")
    return samples


def _tree(folder: Path, classes: tuple[str, ...], size: int | None) -> Samples:
    _check_classes(folder, classes)
    found = [(file, number) for number, name in enumerate(classes) for file in _files(folder / name)]
    if not found:
        raise DataError(f"{folder}: contains no images; allowed: {', '.join(IMG_EXTENSIONS)}")
    files = [file for file, _ in found]
    known = stamp(files)
    return all_samples(
        np.array([label for _, label in found]),
        partial(_load, folder, files, size),
        stamp=known and f"folder|{PIL.__version__}|{size}|{known}",
    )


def _files(folder: Path) -> Iterator[str]:
    """Images of a class, in torchvision's order. A folder that contains a link to itself is visited once.

    (torchvision's `make_dataset` follows such links until the path is too long for the operating system.)
    """
    seen: set[tuple[int, int]] = set()
    found: list[tuple[str, list[str]]] = []
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        found.append((place, sorted(names)))
    for place, names in sorted(found):
        yield from (os.path.join(place, name) for name in names if name.lower().endswith(IMG_EXTENSIONS))


def _load(folder: Path, files: list[str], size: int | None, rows: Rows) -> Images:
    pictures = _pictures((files[row] for row in rows), size)
    return stack(pictures, count=len(rows), mode="RGB", size=size, where=str(folder))


def _pictures(files: Iterator[str], size: int | None) -> Iterator[Image.Image]:
    for file in files:
        try:
            with Image.open(file, formats=FORMATS) as picture:
                check_pixels(picture, one_line(file))
                if size is not None:
                    picture.draft("RGB", (2 * size, 2 * size))  # decodes a large JPEG at a fraction of its size
                yield ImageOps.exif_transpose(picture).convert("RGB")
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise errors of many types for damaged bytes
            raise DataError(f"{one_line(file)}: not a readable image: {short_reason(error)}") from error
