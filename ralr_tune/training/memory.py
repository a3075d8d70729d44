"""Detects that memory ran out, on a device or on the host, and continues with fewer samples at once."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import ceil
from typing import TypeVar

import torch

from ralr_tune.errors import TrialError
from ralr_tune.tasks.base import Batch

T = TypeVar("T")

OOM_PATTERN = re.compile(
    r"can't allocate memory|not enough memory|out of memory|ALLOC_FAILED|could not create a primitive(?! descriptor)"
)
"""Messages of RuntimeErrors for missing memory. In this order: torch's allocator on a CPU (Linux, Windows); CUDA and
MPS outside of torch's own allocator; cuBLAS and cuDNN; oneDNN, whose convolutions give no clearer message (in 51 of 57
cases, measured with small_cnn under RLIMIT_AS)."""

MALLOC_OPTIONS = {-4: 0, -1: 2**31 - 1, -2: 2**26}
"""glibc's M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD (malloc.h): no mmap, no trimming below 2 GiB, growth by 64 MiB."""

BATCH_NORM_ERROR = "Expected more than 1 value per channel when training"
"""The error of torch's batch normalisation for one sample with 1x1 maps."""


@dataclass(frozen=True)
class OutOfMemory:
    """Memory ran out; `reason` is the library's message."""

    reason: str


def within_memory(work: Callable[[], T]) -> T | OutOfMemory:
    """The result of `work`, or OutOfMemory if memory ran out; the caller must then call `free`."""
    try:
        return work()
    except Exception as error:  # its traceback references the tensors of every frame, so the caller retries, not this
        if not is_out_of_memory(error):
            raise
        return OutOfMemory(first_line(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error.__context__, MemoryError | torch.OutOfMemoryError):
        return True  # `torch.save` and the end of a recording raise other errors because of it
    return isinstance(error, RuntimeError) and OOM_PATTERN.search(str(error)) is not None


def free() -> None:
    """Returns unreferenced memory to the system and to other programs on the device."""
    gc.collect()
    torch.cuda.empty_cache()


def keep_freed() -> None:
    """Makes glibc keep freed memory in this process; no effect with other C libraries. Call it after loading the data.

    By default glibc allocates activations of some megabytes from the system and returns them in every step, and the
    system zeroes each page: up to 7% of the time of ResNet-20 on a CPU (measured).
    """
    with suppress(AttributeError, OSError, TypeError):  # another library, or another system
        library = ctypes.CDLL(None)
        for option, value in MALLOC_OPTIONS.items():
            library.mallopt(option, value)


@dataclass(frozen=True)
class MemoryBudget:
    """How many samples at once fit into memory; None: as many as configured. Checkpoints contain these field names."""

    training: int | None = None
    since: int | None = None
    """The first epoch, counted from 1, that was trained in micro-batches of `training` samples."""
    evaluation: int | None = None
    recorded: bool = True
    """Whether recorded steps fit into memory; steps that are not recorded need less and give the same sums."""

    def less_for_training(
        self, batch_size: int, epoch: int, reason: str, *, largest_batch: int | None = None
    ) -> MemoryBudget:
        """Halves the micro-batches from this epoch on, repeatedly until they split a batch of `largest_batch` samples:
        `batch_size` may count something else, for example tokens. Raises TrialError("oom") below one sample.
        """
        size = _half(self.training or batch_size, reason)
        while largest_batch and size >= largest_batch:
            size = _half(size, reason)
        return replace(self, training=size, since=epoch)

    def less_for_evaluation(self, default_batch: int, reason: str) -> MemoryBudget:
        """Halves the batches of every evaluation. Raises TrialError("oom") below one sample."""
        return replace(self, evaluation=_half(min(default_batch, self.evaluation or default_batch), reason))

    def recovered(self, batch_size: int) -> str | None:
        """One sentence on how the trial recovered; None if memory never ran out."""
        measures = []
        if self.training:
            measures.append(
                f"trained in micro-batches of {self.training} (batch_size {batch_size}) from epoch {self.since} on"
            )
        if self.evaluation:
            measures.append(f"evaluated in batches of {self.evaluation}")
        return f"out of memory: {', '.join(measures)}" if measures else None


def _half(size: int, reason: str) -> int:
    if size == 1:
        raise TrialError("oom", f"{reason}; not enough memory even for one sample at a time")
    return size // 2


def micro_batches(batch: Batch, largest: int | None) -> Sequence[Batch]:
    """Splits the batch into parts of nearly equal size, of at most `largest` samples; None: no split. A batch that is
    accumulated in any case (see tasks.base.AccumulatedBatch) is split part by part.

    No part has one sample unless all have, since batch normalisation needs a variance; to avoid it, a part may have one
    sample more than `largest`.
    """
    if hasattr(batch, "accumulated"):
        return [part for each in batch.accumulated() for part in micro_batches(each, largest)]
    if largest is None or len(batch) <= largest:
        return [batch]
    parts = ceil(len(batch) / largest)
    if largest > 1 and len(batch) < 2 * parts:
        parts = len(batch) // 2
    return batch.split(parts)


@contextmanager
def too_few_samples_is_oom(largest: int | None) -> Iterator[None]:
    """Inside the block, if `largest` is 1, batch normalisation's error for a single sample becomes TrialError("oom"):
    the batches are that small because memory ran out."""
    try:
        yield
    except ValueError as error:
        if largest != 1 or BATCH_NORM_ERROR not in str(error):
            raise
        raise TrialError(
            "oom", "out of memory: batch normalisation needs two samples at a time, and they do not fit"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of the error's message, or its type if it has none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
