"""Atomic writes (temporary file, then rename), so that a reader never sees a partial file; and bounded reads."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ralr_tune.errors import DiskError

_FULL = "free disk space there"
_READ_ONLY = "make the folder writable, or give another with --out"
ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or give another folder with --out",
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
}
"""What the user can do, by error number."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder. It is renamed to `path` if the block succeeds, otherwise deleted.

    There is no fsync: the rename protects against a process killed at any moment, and readers detect files that a
    power failure damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # two workers may briefly hold the same trial
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(OSError):  # report the original error instead
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside the block, an OSError becomes a DiskError that names the file, the reason and what to do."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "give another folder with --out")
        raise DiskError(
            f"{path}: cannot be written: {error.strerror or error}; {advice}, then run again: nothing is lost"
        ) from error


def write(path: Path, *parts: bytes) -> None:
    """Replaces the content of `path` atomically and creates missing folders. Raises DiskError as `writing` does."""
    with writing(path), replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines(parts)


def encoded(text: str) -> bytes:
    """A text for people in UTF-8; bytes of file names that are not UTF-8 are escaped (PEP 383)."""
    return text.encode("utf-8", "backslashreplace")


def sha256_of(path: Path) -> str | None:
    """The SHA-256 of a file; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


@contextmanager
def opened(path: Path, limit: int) -> Iterator[BinaryIO]:
    """Opens a file for reading. Raises OSError, also if `path` is not a regular file or has more than `limit` bytes."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would block until its other end opens
        raise OSError("not a file")
    if found.st_size > limit:
        raise OSError(f"{found.st_size:,} bytes; allowed: at most {limit:,}")
    with path.open("rb") as file:
        yield file
