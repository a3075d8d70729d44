"""Image files below folders: one walk collects names, sizes and modification times, and counts other files."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ralr_tune.errors import DataError
from ralr_tune.images.files import digest64, short_reason
from ralr_tune.images.layout import is_hidden
from ralr_tune.images.pictures import picture_suffixes
from ralr_tune.kinds.classification.samples import Contents, Listing
from ralr_tune.kinds.classification.stratify import Rows
from ralr_tune.studyfile.problems import one_line

HIDDEN = "hidden or the system's"
NO_IMAGE = "not a format that Pillow decodes"
NO_FILE = "not a file"

QUICK_BYTES = 4096
"""Read from the end of a file for a quick digest: pictures differ there, their headers may not. One disk page."""

READ_THREADS = 8
"""Threads that read files for their digests: disks are faster with several requests at once."""

ImageFile = tuple[str, int, int]
"""Path, size in bytes, modification time in nanoseconds."""


@dataclass
class Walk:
    """Image files below one folder, in torchvision's order, and counts of skipped entries by (what, why)."""

    files: list[ImageFile] = field(default_factory=list)
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)


def walk(folder: str) -> Walk:
    """All images below `folder`; hidden and system names are skipped at every depth.

    A folder that contains a link to itself is visited once: torchvision's `make_dataset` follows such links until the
    path is too long for the system. Raises DataError if a folder cannot be listed or a link leads nowhere.
    """
    suffixes, found, places = picture_suffixes(), Walk(), dict[str, list[ImageFile]]()
    waiting, seen = [folder], set[tuple[int, int]]()
    while waiting:
        place = waiting.pop()
        if (identity := _identity(place)) in seen:
            continue
        seen.add(identity)
        places[place], inside = [], []
        for entry in entries(place):
            suffix = os.path.splitext(entry.name)[1].lower()
            if is_hidden(entry.name):
                found.skipped[hidden_as(entry), HIDDEN] += 1
            elif entry.is_dir():
                inside.append(entry.path)
            elif suffix not in suffixes:
                found.skipped[suffix or "no ending", NO_IMAGE] += 1
            elif (status := _status(entry)) is None:
                found.skipped[suffix, NO_FILE] += 1
            else:
                places[place].append((entry.path, status.st_size, status.st_mtime_ns))
        waiting += reversed(inside)  # the order of os.walk: of several paths to one folder, the first is used
    found.files = [file for place in sorted(places) for file in sorted(places[place])]
    return found


def entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder. Raises DataError if it cannot be listed."""
    try:
        with os.scandir(folder) as listed:
            yield from listed
    except OSError as error:
        raise DataError(f"{one_line(folder)}: cannot be listed: {short_reason(error)}") from error


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def hidden_as(entry: os.DirEntry[str]) -> str:
    """The name under which a hidden entry is counted: "._*" for all, as there may be one for each picture."""
    if entry.is_dir():
        return f"{entry.name}/"
    return "._*" if entry.name.startswith("._") else entry.name


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """None if it is not a regular file: reading a pipe may block forever."""
    try:
        status = entry.stat()
    except OSError as error:  # usually a broken link
        raise DataError(f"{one_line(entry.path)}: not a readable image: {short_reason(error)}") from error
    return status if stat.S_ISREG(status.st_mode) else None


def listing(files: list[ImageFile], root: str) -> Listing:
    """The `Listing` of these files, which are below `root`."""
    paths = [path for path, _, _ in files]
    sizes, times = (np.array([file[column] for file in files], dtype=np.int64) for column in (1, 2))
    text = "\0".join([os.path.abspath(root), *paths]).encode(errors="surrogateescape")
    total = hashlib.sha256(text)
    for numbers in (sizes, times):
        total.update(numbers.astype("<i8").tobytes())

    def digests(rows: Rows, *, quick: bool) -> NDArray[np.uint64]:
        with ThreadPoolExecutor(READ_THREADS) as pool:
            blocks = np.array_split(rows, max(1, len(rows) // 1000))
            found = pool.map(lambda block: [_digest(paths[row], int(sizes[row]), quick) for row in block], blocks)
            return np.array([digest for block in found for digest in block], dtype=np.uint64)

    return Listing(
        total.hexdigest(),
        names=lambda row: os.path.relpath(paths[row], root),
        contents=Contents(len(files), partial(digests, quick=False)),
        sizes=sizes,
        quick=partial(digests, quick=True),
    )


def _digest(path: str, size: int, quick: bool) -> int:
    try:
        with open(path, "rb", buffering=0) as file:
            if quick and size > QUICK_BYTES:
                file.seek(size - QUICK_BYTES)
            return digest64(file.read())
    except OSError as error:
        raise DataError(f"{one_line(path)}: not a readable image: {short_reason(error)}") from error
