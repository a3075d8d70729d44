"""The files of a data set: whether they changed, whether their contents are equal, and their names in messages."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ralr_tune.studyfile.problems import cut, one_line

Images = NDArray[np.uint8]
"""Pixels of any number of images."""


def short_reason(error: Exception) -> str:
    """The first line of a library's error, at most 300 characters; its type if the error has no text."""
    text = re.sub(r" ?<\S+ object at 0x\w+>", "", str(error))  # Pillow's name of the bytes; callers name the file
    return cut(one_line(text.strip().partition("\n")[0]), 300) or type(error).__name__


def digest64(content: bytes) -> int:
    """A 64-bit hash: among a million different contents, the chance that any two share one is 3 in 100 million."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def stamp(files: Iterable[str | Path]) -> str | None:
    """A hash of names, sizes and modification times; None if a file cannot be accessed."""
    total = hashlib.sha256()
    try:
        for file in files:
            found = os.stat(file)
            total.update(
                f"{os.path.abspath(file)}|{found.st_size}|{found.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
    except OSError:
        return None
    return total.hexdigest()


def listed(names: Sequence[str]) -> str:
    """The first 20 names, shortened and escaped for a message: they come from the data and may contain anything."""
    return ", ".join(one_line(cut(name, 80)) for name in names[:20]) + (", ..." if len(names) > 20 else "")
