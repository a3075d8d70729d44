"""Running out of memory, on a device or on the host, and going on with fewer samples at once."""

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

NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|out of memory|ALLOC_FAILED|could not create a primitive(?! descriptor)"
)
"""What a RuntimeError says then. In this order: torch's allocator on a CPU (Linux, Windows); CUDA and MPS outside of
torch's own allocator; cuBLAS and cuDNN; oneDNN, whose convolutions say nothing clearer (51 of 57 times, measured with
small_cnn under RLIMIT_AS)."""

MALLOC_OPTIONS = {-4: 0, -1: 2**31 - 1, -2: 2**26}
"""glibc's M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD (malloc.h): nothing by mmap, no trimming below 2 GiB, growth by
64 MiB."""

TOO_FEW = "Expected more than 1 value per channel when training"
"""What torch's batch normalisation says of one sample whose maps are 1x1."""


@dataclass(frozen=True)
class OutOfMemory:
    """Memory ran out, and why, as the library says it."""

    reason: str


def within_memory(work: Callable[[], T]) -> T | OutOfMemory:
    """What `work` gives; OutOfMemory where memory ran out, and then only `free` is left to do."""
    try:
        return work()
    except Exception as error:  # its traceback holds the tensors of every frame, so nothing is tried again in here
        if not is_out_of_memory(error):
            raise
        return OutOfMemory(first_line(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the device or of the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error.__context__, MemoryError | torch.OutOfMemoryError):
        return True  # `torch.save` makes something else of it, and so does the end of a recording
    return isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None


def free() -> None:
    """Gives back what nothing refers to any more, to the system and to other programs on the device."""
    gc.collect()
    torch.cuda.empty_cache()


def keep_freed() -> None:
    """Memory that is freed stays with this process, where its C library is glibc; call it once the data are loaded.

    By default glibc takes activations of some megabytes from the system and gives them back in every step, and the
    system fills each page with zeros first: up to 7% of the time of ResNet-20 on a CPU (measured).
    """
    with suppress(AttributeError, OSError, TypeError):  # another library, or another system
        library = ctypes.CDLL(None)
        for option, value in MALLOC_OPTIONS.items():
            library.mallopt(option, value)


@dataclass(frozen=True)
class MemoryBudget:
    """How many samples at once there was memory for; None: for as many as asked. Checkpoints hold it by these names."""

    training: int | None = None
    since: int | None = None
    """The first epoch, from 1 on, that was trained in micro-batches of `training` samples."""
    evaluation: int | None = None
    recorded: bool = True
    """Whether there was memory for recorded steps; the same steps take less one by one, and no sum is another."""

    def less_for_training(
        self, batch_size: int, epoch: int, reason: str, *, largest_batch: int | None = None
    ) -> MemoryBudget:
        """Micro-batches of half the size from this epoch on, halved until they split a batch of `largest_batch`
        samples: `batch_size` may count something else, tokens for example. Raises TrialError("oom") below one sample.
        """
        size = _half(self.training or batch_size, reason)
        while largest_batch and size >= largest_batch:
            size = _half(size, reason)
        return replace(self, training=size, since=epoch)

    def less_for_evaluation(self, usual: int, reason: str) -> MemoryBudget:
        """Batches of half the size in every evaluation. Raises TrialError("oom") below one sample."""
        return replace(self, evaluation=_half(min(usual, self.evaluation or usual), reason))

    def recovered(self, batch_size: int) -> str | None:
        """What was mended, in a sentence."""
        ways = []
        if self.training:
            ways.append(
                f"trained in micro-batches of {self.training} (batch_size {batch_size}) from epoch {self.since} on"
            )
        if self.evaluation:
            ways.append(f"evaluated in batches of {self.evaluation}")
        return f"out of memory: {', '.join(ways)}" if ways else None


def _half(size: int, reason: str) -> int:
    if size == 1:
        raise TrialError("oom", f"{reason}; there is no room for one sample at a time either")
    return size // 2


def micro_batches(batch: Batch, largest: int | None) -> Sequence[Batch]:
    """The batch in parts of nearly equal size, of at most `largest` samples; None: as it is.

    No part is of one sample unless all are, since batch normalisation has no variance to take of one: there a part may
    have one sample more.
    """
    if largest is None or len(batch) <= largest:
        return [batch]
    parts = ceil(len(batch) / largest)
    if largest > 1 and len(batch) < 2 * parts:
        parts = len(batch) // 2
    return batch.split(parts)


@contextmanager
def single_samples(largest: int | None) -> Iterator[None]:
    """Inside, a network that cannot learn from one sample at a time has no memory, where `largest` says one."""
    try:
        yield
    except ValueError as error:
        if largest != 1 or TOO_FEW not in str(error):
            raise
        raise TrialError(
            "oom", "out of memory: batch normalisation needs two samples at a time, and there is no room for them"
        ) from error


def first_line(error: BaseException) -> str:
    """Of the message; the error's name where it has none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
