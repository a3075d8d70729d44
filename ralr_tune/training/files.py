"""Files that are written beside and renamed, so that a reader never sees half of one; and read with care."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ralr_tune.errors import DiskError

_FULL = "make room there"
_CLOSED = "make the folder writable, or give another with --out"
ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or give another folder with --out",
    errno.EROFS: _CLOSED,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
}
"""What to do, by the reason."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name to write to, in the same folder; it becomes `path` if the block ends well, and else vanishes.

    Nothing waits for the disk (fsync): a process may be killed at any moment, and what a power failure leaves behind
    is recognised as damaged by whoever reads it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")  # two workers may for a moment hold the same trial
    try:
        yield beside
        beside.replace(path)
    finally:
        with suppress(OSError):  # the reason why it could not be written is the one to tell
            beside.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever the system refuses inside becomes a DiskError that names file, reason and what to do."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "give another folder with --out")
        raise DiskError(
            f"{path}: cannot be written: {error.strerror or error}; {advice}, then run again: nothing is lost"
        ) from error


def write(path: Path, *parts: bytes) -> None:
    """`path` with these bytes, or what was there before; makes missing folders. Raises DiskError as `writing` does."""
    with writing(path), replacing(path) as beside, beside.open("wb") as file:
        file.writelines(parts)


def encoded(text: str) -> bytes:
    """A text for people in UTF-8; bytes of file names that are not UTF-8 are escaped (PEP 383)."""
    return text.encode("utf-8", "backslashreplace")


@contextmanager
def opened(path: Path, limit: int) -> Iterator[BinaryIO]:
    """A file to read from. Raises OSError, also where `path` is no plain file or has more than `limit` bytes."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its other end
        raise OSError("not a file")
    if found.st_size > limit:
        raise OSError(f"{found.st_size:,} bytes, where at most {limit:,} make sense")
    with path.open("rb") as file:
        yield file
