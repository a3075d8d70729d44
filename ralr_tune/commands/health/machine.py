"""The machine: cores, memory, limits, compiler, terminal."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import psutil

from ralr_tune.commands.health.check import Check, make_check
from ralr_tune.machine.cgroup import cpu_limit, memory_limit
from ralr_tune.machine.cores import available_cores
from ralr_tune.report.words import size
from ralr_tune.training.kernels.library import Unavailable, compiler

MIN_MEMORY = 2 * 2**30
"""For one worker: torch alone takes half a GiB."""
MIN_FILES = 1024
"""Open files; a run has pipes, logs and connections for each of its workers."""
MIN_SHM = 2**28
SHM = Path("/dev/shm")


def machine_checks() -> Iterator[Check]:
    """All checks of the machine, without importing torch."""
    yield cores_check(available_cores(), os.cpu_count() or 1, cpu_limit(), os.environ.get("OMP_NUM_THREADS"))
    memory = psutil.virtual_memory()
    yield memory_check(memory.total, memory.available, memory_limit(), psutil.Process().memory_info().rss)
    yield files_check(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if SHM.is_dir():
        yield shared_memory_check(shutil.disk_usage(SHM).total)
    yield kernels_check()
    yield terminal_check(sys.stdout)


def cores_check(available: int, all_cores: int, limit: float | None, omp: str | None) -> Check:
    """Check cores and threads; `available`: cores that `run` uses for workers, `limit`: the container's CPU quota."""
    total = f" of {all_cores}" if available < all_cores else ""
    found = f"{available}{total} available"
    warning = ""
    if limit is not None:
        found += f", the container may use {limit:g}"
    if omp is not None:
        found += f"; OMP_NUM_THREADS={omp}"
        if omp.isdigit() and int(omp) > available:
            warning = "unset OMP_NUM_THREADS: more threads than cores are slower"
    return make_check("cores", found, warning=warning)


def memory_check(total: int, free: int, limit: int | None, used: int) -> Check:
    """Check memory; `limit`: the container's limit, `used`: bytes of it that this process uses."""
    found = f"{size(total)}, {size(free)} free"
    if limit is not None and limit < total:
        found += f"; the container may use {size(limit)}"
        free = min(free, limit - used)
    warning = "" if free >= MIN_MEMORY else "run with --workers 1, or free some memory: a worker needs about 2 GiB"
    return make_check("memory", found, warning=warning)


def files_check(limit: int) -> Check:
    """Check the limit on open files."""
    unlimited = limit == resource.RLIM_INFINITY
    warning = "" if unlimited or limit >= MIN_FILES else f"run `ulimit -n {MIN_FILES}` before you start many workers"
    return make_check("open files", "unlimited" if unlimited else f"at most {limit}", warning=warning)


def shared_memory_check(total: int) -> Check:
    """Check /dev/shm; only a user's network or data loader that starts its own processes needs it."""
    small = "code of your own that shares tensors between processes needs more: docker run --shm-size=1g"
    return make_check("shared memory", f"{size(total)} in {SHM}", warning="" if total >= MIN_SHM else small)


def kernels_check() -> Check:
    """Check for a compiler for the kernels that train on a CPU; does not build them."""
    try:
        command = compiler()
    except Unavailable as reason:
        return Check("kernels", "warning", str(reason), "for faster training on a CPU, install g++, or set CXX")
    return Check("kernels", "ok", f"compiled at the first run with {command[0]}")


def terminal_check(stream: TextIO) -> Check:
    """Check that the output encoding can show tables and names."""
    encoding = (stream.encoding or "ascii").lower()
    what = "a terminal" if stream.isatty() else "not a terminal: `run` prints plain lines"
    warning = "" if encoding.replace("-", "") == "utf8" else "set LANG=C.UTF-8 or PYTHONUTF8=1"
    return make_check("output", f"{what}, {encoding}", warning=warning)
