"""Writing files that people open: beside and renamed, and a clear word when that is not possible."""

from __future__ import annotations

from pathlib import Path

from ralr_tune.errors import UsageError
from ralr_tune.training.files import encoded, replacing


def write_text(path: Path, text: str) -> None:
    """`path` with this text in UTF-8; as `write_bytes`."""
    write_bytes(path, encoded(text))


def write_bytes(path: Path, data: bytes) -> None:
    """`path` with these bytes: all of them or, if that fails, what was there before. Makes missing folders.

    Raises UsageError, naming path and reason, when the file cannot be written.
    """
    try:
        target = path.resolve()  # through a link, to what it points to
        if target.exists() and not target.is_file():
            target.write_bytes(data)  # a device or a pipe (-o /dev/stdout): renaming onto it would replace it
            return
        with replacing(target) as beside:
            beside.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
