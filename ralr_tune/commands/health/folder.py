"""The out folder: whether it can be written, how quickly, and whether there is room for checkpoints."""

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

from ralr_tune.commands.health.check import Check, judged
from ralr_tune.invocation import command
from ralr_tune.report.words import size
from ralr_tune.search.audits import share
from ralr_tune.search.stages import judged_runs
from ralr_tune.studyfile import StudySpec

WRITTEN = 64 * 2**20
LONGEST_S = 2.0
"""A slow disk is known before all of it is written."""
FSYNCS = 16
LITTLE_SPACE = 2**30
SLOW_BYTES_A_S = 20e6
SLOW_FSYNC_S = 0.1
FEW_INODES = 1000

_STATES = 3
"""A checkpoint holds the weights and, in most optimizers, as much once or twice."""
_COPIES = 3
"""Of a checkpoint: the one before, the one being written, one of an earlier attempt."""


@dataclass(frozen=True)
class Speed:
    """How a folder takes what is written."""

    bytes_a_s: float
    fsync_s: float
    """Median of small writes that wait for the disk."""


def folder_checks(out: Path, needed: int | None, clean: str | None = None) -> Iterator[Check]:
    """`out` need not be there yet. `needed`: bytes of the study's checkpoints at once, where they are known.

    `clean`: the command that makes room; None: on all studies here.
    """
    folder = next(each for each in (out.absolute(), *out.absolute().parents) if each.exists())
    shown = str(out) if folder == out.absolute() else f"{out} (to be made in {folder})"
    try:
        speed = measured(folder)
    except OSError as error:
        mend = "make it writable, or give another with --out"
        yield Check("out folder", "problem", f"{shown}: nothing can be written there: {error.strerror or error}", mend)
        return
    yield speed_check(shown, speed)
    yield space_check(shutil.disk_usage(folder).free, os.statvfs(folder), needed, clean)


def measured(folder: Path) -> Speed:
    """Writes to a file without a name, which vanishes whatever happens. OSError where that cannot be."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        return Speed(_throughput(file), median(_fsynced(file) for _ in range(FSYNCS)))


def speed_check(shown: str, speed: Speed) -> Check:
    """Checkpoints are written after every epoch, without waiting for the disk."""
    slow = speed.bytes_a_s < SLOW_BYTES_A_S or speed.fsync_s > SLOW_FSYNC_S
    found = f"{shown}: writes {size(speed.bytes_a_s)}/s, fsync {speed.fsync_s * 1000:.2g} ms"
    return judged("out folder", found, warning="give a faster disk with --out: trials wait for it" if slow else "")


def space_check(free: int, inodes: os.statvfs_result, needed: int | None, clean: str | None = None) -> Check:
    """Room for checkpoints and weights."""
    wanted = "" if needed is None else f"; checkpoints and weights of this study take up to {size(needed)}"
    little = free < max(LITTLE_SPACE, 2 * (needed or 0))
    # file systems without a fixed number of inodes say 0 of 0
    few = inodes.f_files > 0 and inodes.f_favail < FEW_INODES
    room = f"make room (`{clean or command('gc')}` removes what is no longer needed), or give another disk with --out"
    return judged(
        "space",
        f"{size(free)} free{wanted}",
        problem=room if needed is not None and free < needed else "",
        warning=room if little else f"only {inodes.f_favail} files more: remove some" if few else "",
    )


def needed_bytes(spec: StudySpec, weights: int, workers: int) -> int:
    """Of checkpoints and waiting weights at once, at most; `weights`: bytes of the network.

    Checkpoints are those of trials under way, and of pruned ones that wait for their audit.
    """
    trials = spec.search.trials * spec.search.blocks
    audits = math.ceil(share(spec, trials) * trials) * len(spec.arms)
    return weights * (workers * _STATES * _COPIES + audits * _STATES + judged_runs(spec))


def _throughput(file: IO[bytes]) -> float:
    chunk = os.urandom(2**20)  # zeros might be compressed away
    began, written = time.perf_counter(), 0
    while written < WRITTEN and time.perf_counter() - began < LONGEST_S:
        written += file.write(chunk)
    os.fsync(file.fileno())
    return written / (time.perf_counter() - began)


def _fsynced(file: IO[bytes]) -> float:
    began = time.perf_counter()
    file.write(b"x" * 4096)
    os.fsync(file.fileno())
    return time.perf_counter() - began
