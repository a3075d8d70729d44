"""Files that are written beside and renamed, so that a reader never sees half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name to write to, in the same folder; it becomes `path` if the block ends well, and else vanishes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")  # two workers may for a moment hold the same trial
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
