"""How much of this machine's memory a data set may take; asked before anything is decompressed or allocated."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ralr_tune.errors import DataError

SHARE = 0.5
"""Of the memory that is free: images are copied once on their way."""

_GROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""What a container may use, under version 2 and 1 of Linux's control groups."""


def check_memory(size_bytes: int, what: str) -> None:
    """Raises DataError, beginning with `what`, for data that are too large to be held."""
    most = int(SHARE * free_bytes())
    if size_bytes > most:
        raise DataError(
            f"{what}: {gib(size_bytes)} in memory; allowed: {gib(most)}, half of what is free here"
            " (data.limit and data.size make it less)"
        )


def free_bytes() -> int:
    """Memory that this process could still take, a container's bound included."""
    import psutil

    bounds = [int(psutil.virtual_memory().available)]
    for path in _GROUP_LIMITS:
        with suppress(OSError, ValueError):  # not there; "max"
            bounds.append(int(path.read_text()))
    return min(bounds)


def gib(size_bytes: int) -> str:
    """As people read it."""
    return f"{size_bytes / 2**30:.4g} GiB"
