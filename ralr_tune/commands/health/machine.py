"""The machine: cores, memory, limits, compiler, the terminal."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import psutil

from ralr_tune.commands.health.check import Check, judged
from ralr_tune.machine.cgroup import cpu_limit, memory_limit
from ralr_tune.machine.cores import available_cores
from ralr_tune.report.words import size
from ralr_tune.training.kernels.library import Unavailable, compiler

LITTLE_MEMORY = 2 * 2**30
"""Of a worker: torch alone takes half a GiB."""
FEW_FILES = 1024
"""Open files; a run has pipes, logs and connections for each of its workers."""
SMALL_SHM = 2**28
SHM = Path("/dev/shm")


def machine_checks() -> Iterator[Check]:
    """All of them; no torch."""
    yield cores_check(available_cores(), os.cpu_count() or 1, cpu_limit(), os.environ.get("OMP_NUM_THREADS"))
    memory = psutil.virtual_memory()
    yield memory_check(memory.total, memory.available, memory_limit(), psutil.Process().memory_info().rss)
    yield files_check(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if SHM.is_dir():
        yield shared_memory_check(shutil.disk_usage(SHM).total)
    yield kernels_check()
    yield terminal_check(sys.stdout)


def cores_check(available: int, all_cores: int, limit: float | None, omp: str | None) -> Check:
    """Cores and threads; `available` is what `run` starts workers on, `limit` the container's quota."""
    of_all = f" of {all_cores}" if available < all_cores else ""
    found = f"{available}{of_all} available"
    warning = ""
    if limit is not None:
        found += f", the container may use {limit:g}"
    if omp is not None:
        found += f"; OMP_NUM_THREADS={omp}"
        if omp.isdigit() and int(omp) > available:
            warning = "unset OMP_NUM_THREADS: more threads than cores slow each other down"
    return judged("cores", found, warning=warning)


def memory_check(total: int, free: int, limit: int | None, used: int) -> Check:
    """Memory, a container's limit included; `used`: by this process, of the limit."""
    found = f"{size(total)}, {size(free)} free"
    if limit is not None and limit < total:
        found += f"; the container may use {size(limit)}"
        free = min(free, limit - used)
    warning = "" if free >= LITTLE_MEMORY else "run with --workers 1, or free some: a worker wants about 2 GiB"
    return judged("memory", found, warning=warning)


def files_check(limit: int) -> Check:
    """Open files."""
    unlimited = limit == resource.RLIM_INFINITY
    warning = "" if unlimited or limit >= FEW_FILES else f"ulimit -n {FEW_FILES} before many workers are started"
    return judged("open files", "unlimited" if unlimited else f"at most {limit}", warning=warning)


def shared_memory_check(total: int) -> Check:
    """Nothing here needs it but a network or data loader of one's own with processes of its own."""
    small = "a network of your own that shares tensors needs more: docker run --shm-size=1g"
    return judged("shared memory", f"{size(total)} in {SHM}", warning="" if total >= SMALL_SHM else small)


def kernels_check() -> Check:
    """Whether there is a compiler for the kernels that train on a CPU; nothing is built."""
    try:
        by = compiler()
    except Unavailable as reason:
        return Check("kernels", "warning", str(reason), "training on a CPU is slower without: install g++, or name CXX")
    return Check("kernels", "ok", f"built at the first run by {by[0]}")


def terminal_check(stream: TextIO) -> Check:
    """Whether tables and names can be printed."""
    encoding = (stream.encoding or "ascii").lower()
    what = "a terminal" if stream.isatty() else "no terminal: `run` prints plain lines"
    warning = "" if encoding.replace("-", "") == "utf8" else "set LANG=C.UTF-8, or PYTHONUTF8=1"
    return judged("output", f"{what}, {encoding}", warning=warning)
