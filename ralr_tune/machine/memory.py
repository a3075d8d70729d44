"""How much of this machine's memory a data set may take; asked before anything is decompressed or allocated."""

from __future__ import annotations

from pathlib import Path

from ralr_tune.errors import DataError
from ralr_tune.machine.cgroup import ROOT, memory_limit

SHARE = 0.5
"""Of the memory that is free: images are copied once on their way."""


def check_memory(size_bytes: int, what: str) -> None:
    """Raises DataError, beginning with `what`, for data that are too large to be held."""
    most = int(SHARE * free_bytes())
    if size_bytes > most:
        raise DataError(
            f"{what}: {gib(size_bytes)} in memory; allowed: {gib(most)}, half of what is free here"
            " (data.limit and data.size make it less)"
        )


def free_bytes(root: Path = ROOT) -> int:
    """Memory that this process could still take: what is free, and no more than its container may use in all."""
    import psutil

    free, limit = int(psutil.virtual_memory().available), memory_limit(root)
    return free if limit is None else min(free, limit)


def gib(size_bytes: int) -> str:
    """As people read it."""
    return f"{size_bytes / 2**30:.4g} GiB"
