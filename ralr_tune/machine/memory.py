"""How much of this machine's memory a data set may use; checked before it is decompressed or allocated."""

from __future__ import annotations

from pathlib import Path

from ralr_tune.errors import DataError
from ralr_tune.machine.cgroup import ROOT, memory_limit

SHARE = 0.5
"""Of the free memory: loading copies the images once."""


def check_memory(size_bytes: int, what: str) -> None:
    """Raises DataError, beginning with `what`, if data of this size do not fit into memory."""
    allowed = int(SHARE * free_bytes())
    if size_bytes > allowed:
        raise DataError(
            f"{what}: {gib(size_bytes)} in memory; allowed: {gib(allowed)}, half of the free memory"
            " (reduce it with data.limit or data.size)"
        )


def free_bytes(root: Path = ROOT) -> int:
    """Memory that this process can still allocate: the machine's free memory, at most its container's limit."""
    import psutil

    free, limit = int(psutil.virtual_memory().available), memory_limit(root)
    return free if limit is None else min(free, limit)


def gib(size_bytes: int) -> str:
    """The size in GiB, with the unit."""
    return f"{size_bytes / 2**30:.4g} GiB"
