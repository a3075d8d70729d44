"""Finds images by the names that annotations give them, and the splits that folders and files denote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ralr_tune.errors import DataError
from ralr_tune.images.files import short_reason
from ralr_tune.images.layout import is_hidden, mentioned_splits, split_of
from ralr_tune.images.pictures import open_picture, picture_suffixes


def walk_files(root: Path) -> Iterator[Path]:
    """All files below a folder, in alphabetical order, without hidden ones and those of the system."""
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(folder) / name for name in sorted(names) if not is_hidden(name))


def opened_folder(path: str) -> Path:
    """The folder that `data.path` names. Raises DataError if there is none."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"{path}: {'not a folder' if root.exists() else 'no such folder'}")
    return root


class PictureFinder:
    """The images below a folder, by file name."""

    def __init__(self, root: Path) -> None:
        self._root, suffixes = root, picture_suffixes()
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for path in walk_files(root):
            if path.suffix.lower() in suffixes:
                self._by_name.setdefault(path.name, []).append(path)
                self._by_stem.setdefault(path.stem, []).append(path)

    def __len__(self) -> int:
        return sum(map(len, self._by_name.values()))

    def paths(self) -> Iterator[Path]:
        """All of them."""
        return (path for found in self._by_name.values() for path in found)

    def find(self, name: str, *, split: str | None = None, near: Path | None = None) -> Path | str:
        """The image of this name, or with the same stem and another suffix; or what is wrong.

        Of several, that whose path ends in `name`; then that in a folder of the split; then the one nearest to `near`.
        """
        wanted = Path(name.replace("\\", "/"))
        found = self._by_name.get(wanted.name) or self._by_stem.get(wanted.stem) or []
        for narrower in (
            lambda path: path.as_posix().endswith(f"/{wanted.as_posix()}"),
            lambda path: split is not None and split in _splits_above(path, self._root),
            lambda path: near is not None and path.parent in (near, near.parent),
        ):
            if len(found) > 1:
                found = list(filter(narrower, found)) or found
        if len(found) > 1:
            return f"image {name!r}: {len(found)} files have this name: {found[0]}, {found[1]}"
        return found[0] if found else f"image {name!r}: missing below {self._root}"


def _splits_above(path: Path, root: Path) -> set[str]:
    """The splits that the folders between the root and a file denote: val2017 denotes validation."""
    names = path.relative_to(root).parts[:-1]
    return {found for name in names if (found := split_of(name.rstrip("0123456789"))) is not None}


def split_in(path: Path, root: Path) -> str | None:
    """The split that a file's name or its folders denote: instances_train2017.json, train/_annotations.coco.json."""
    above = _splits_above(path, root)
    found = mentioned_splits([path.stem]) or above
    return next(iter(found)) if len(found) == 1 else None


def picture_size(file: str) -> tuple[int, int]:
    """(width, height) from the header of an image. Raises DataError."""
    try:
        with open_picture(file) as picture:
            size: tuple[int, int] = picture.size
            return size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: not a readable image: {short_reason(error)}") from error
