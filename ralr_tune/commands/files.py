"""Write files for users: atomically (temporary file, then rename), with a clear error if that fails."""

from __future__ import annotations

from pathlib import Path

from ralr_tune.errors import UsageError
from ralr_tune.machine.files import encoded, replacing


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8; see `write_bytes`."""
    write_bytes(path, encoded(text))


def write_bytes(path: Path, data: bytes) -> None:
    """Write all bytes to `path` or, if that fails, keep the previous file. Creates missing folders.

    Raises UsageError, naming path and reason, if the file cannot be written.
    """
    try:
        target = path.resolve()  # follow a link: replace its target, not the link
        if target.exists() and not target.is_file():
            target.write_bytes(data)  # a device or a pipe (-o /dev/stdout): renaming onto it would replace it
            return
        with replacing(target) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
