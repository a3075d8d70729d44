"""How many CPU cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from ralr_tune.machine.cgroup import ROOT, cpu_limit


def available_cores(root: Path = ROOT) -> int:
    """The number of cores in this process's affinity mask, limited by its container's quota.

    The quota is rounded down, to at least 1 (our choice): with 2 threads under a quota of 1.5 cores, the kernel stops
    both threads for a quarter of every period, even in the middle of a step.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_limit(root)
    return cores if quota is None else max(1, min(cores, int(quota)))
