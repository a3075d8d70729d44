"""The out folder: whether it is writable, how fast it is, and whether there is space for checkpoints."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO

from ralr_tune.commands.health.check import Check, make_check
from ralr_tune.invocation import command
from ralr_tune.report.words import size
from ralr_tune.search.audits import share
from ralr_tune.search.stages import judged_runs
from ralr_tune.studyfile import StudySpec

TEST_BYTES = 64 * 2**20
MAX_S = 2.0
"""Stop writing after this long: a slow disk shows before all bytes are written."""
FSYNCS = 16
MIN_SPACE = 2**30
MIN_BYTES_PER_S = 20e6
MAX_FSYNC_S = 0.1
MIN_INODES = 1000

_STATES = 3
"""Size of a checkpoint in units of the weights: most optimizers keep one or two values per weight."""
_COPIES = 3
"""Copies of a checkpoint: the previous one, the one being written, and one of an earlier attempt."""


@dataclass(frozen=True)
class Speed:
    """Write speed of a folder."""

    bytes_per_s: float
    fsync_s: float
    """Median time of a small write with fsync."""


def folder_checks(out: Path, needed: int | None, clean: str | None = None) -> Iterator[Check]:
    """`out` need not exist. `needed`: bytes of all checkpoints that the study keeps at the same time, if known.

    `clean`: the command that frees space; None: the one for all studies here.
    """
    folder = next(each for each in (out.absolute(), *out.absolute().parents) if each.exists())
    shown = str(out) if folder == out.absolute() else f"{out} (will be created in {folder})"
    try:
        speed = measure(folder)
    except OSError as error:
        fix = "make it writable, or give another folder with --out"
        yield Check("out folder", "problem", f"{shown}: not writable: {error.strerror or error}", fix)
        return
    yield speed_check(shown, speed)
    yield space_check(shutil.disk_usage(folder).free, os.statvfs(folder), needed, clean)


def measure(folder: Path) -> Speed:
    """Write to an unnamed file, which disappears in any case. Raises OSError if that fails."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        return Speed(_throughput(file), median(_fsync_s(file) for _ in range(FSYNCS)))


def speed_check(shown: str, speed: Speed) -> Check:
    """Check the write speed: checkpoints are written after every epoch, without fsync."""
    slow = speed.bytes_per_s < MIN_BYTES_PER_S or speed.fsync_s > MAX_FSYNC_S
    found = f"{shown}: writes {size(speed.bytes_per_s)}/s, fsync {speed.fsync_s * 1000:.2g} ms"
    return make_check("out folder", found, warning="use a faster disk (--out): trials wait for it" if slow else "")


def space_check(free: int, inodes: os.statvfs_result, needed: int | None, clean: str | None = None) -> Check:
    """Check the free space for checkpoints and weights."""
    wanted = "" if needed is None else f"; checkpoints and weights of this study need up to {size(needed)}"
    little = free < max(MIN_SPACE, 2 * (needed or 0))
    # file systems without a fixed number of inodes report 0 of 0
    few = inodes.f_files > 0 and inodes.f_favail < MIN_INODES
    free_some = f"free some space (`{clean or command('gc')}` removes unneeded files), or use another disk with --out"
    return make_check(
        "space",
        f"{size(free)} free{wanted}",
        problem=free_some if needed is not None and free < needed else "",
        warning=free_some if little else f"only {inodes.f_favail} free inodes: delete some files" if few else "",
    )


def needed_bytes(spec: StudySpec, weights: int, workers: int) -> int:
    """Maximum bytes of checkpoints and saved weights at any time; `weights`: bytes of the network.

    Checkpoints belong to running trials, and to pruned trials that wait for their audit.
    """
    trials = spec.search.trials * spec.search.blocks
    audits = math.ceil(share(spec, trials) * trials) * len(spec.arms)
    return weights * (workers * _STATES * _COPIES + audits * _STATES + judged_runs(spec))


def _throughput(file: IO[bytes]) -> float:
    chunk = os.urandom(2**20)  # random: a file system may compress zeros
    began, written = time.perf_counter(), 0
    while written < TEST_BYTES and time.perf_counter() - began < MAX_S:
        written += file.write(chunk)
    os.fsync(file.fileno())
    return written / (time.perf_counter() - began)


def _fsync_s(file: IO[bytes]) -> float:
    began = time.perf_counter()
    file.write(b"x" * 4096)
    os.fsync(file.fileno())
    return time.perf_counter() - began
