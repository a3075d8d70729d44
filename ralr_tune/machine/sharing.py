"""The share of a GPU's memory that this process may use when other workers use the same GPU.

torch limits each process to its share. A process that asks for more gets an out-of-memory error, from which training
recovers with fewer samples or fewer trials at once; the other processes are not affected.
"""

from __future__ import annotations

import logging

import torch

from ralr_tune.errors import UsageError
from ralr_tune.machine.memory import free_bytes, gib

logger = logging.getLogger(__name__)

OVERHEAD = 2**30
"""Bytes of a share reserved for what torch's allocator neither counts nor limits: the process's CUDA context, kernels
that are loaded at their first use, handles of cuBLAS and cuDNN. On an H100 with torch 2.11: 527 MiB before the first
step, 845 MiB after recorded steps of ResNet-20 (measured); the rest is a reserve."""

MIN_SHARE = 2**28
"""Bytes that a worker needs to start (our choice). Workspaces of cuBLAS and cuDNN alone need some tens of MiB, and
torch allocates blocks of 2 and 20 MiB. With less, one trial after another would run out of memory, and the search
would attribute that to its configuration."""


def take_share(device: str, sharing: int) -> None:
    """Limits the memory of a GPU that this process shares with `sharing - 1` other workers. Call it before anything is
    allocated there. Does nothing on a CPU or without other workers.

    The limit is an equal share, or the free memory if other programs left less, which is logged. Programs that leave a
    share or more cannot be distinguished from workers that hold their share: together they may still fill the GPU, and
    the last process to allocate runs out of memory. Raises UsageError if the limit is too small to start.
    """
    if sharing == 1 or not is_cuda(device):
        return
    index = _index(device)
    free, total = torch.cuda.mem_get_info(index)
    share = total // sharing - OVERHEAD
    limit = min(share, free + torch.cuda.memory_reserved(index))
    found = f"{device}: {gib(free)} of {gib(total)} free; one of {sharing} workers may use {gib(max(share, 0))}"
    if limit < MIN_SHARE:
        raise UsageError(
            f"{found} and needs at least {gib(MIN_SHARE)}: start fewer --workers, or end other programs on this GPU"
        )
    if limit < share:
        logger.warning(
            "%s. Another program uses the rest: continuing with %s. If that is too little, start fewer --workers",
            found,
            gib(limit),
        )
    torch.cuda.set_per_process_memory_fraction(limit / total, index)


def free_on(device: str) -> int:
    """Bytes that this process can still allocate on a device; on a GPU, within its share."""
    if not is_cuda(device):
        return free_bytes()
    index = _index(device)
    free, total = torch.cuda.mem_get_info(index)
    share = int(torch.cuda.get_per_process_memory_fraction(index) * total)
    return max(0, min(free, share - torch.cuda.memory_reserved(index)))


def is_shared(device: str) -> bool:
    """Whether this process is limited to a share of a GPU."""
    return is_cuda(device) and torch.cuda.get_per_process_memory_fraction(_index(device)) < 1


def is_cuda(device: str) -> bool:
    """Whether torch's device name ("cpu", "cuda:0") is a GPU."""
    return torch.device(device).type == "cuda"


def _index(device: str) -> int:
    """The GPU's number: torch's functions that limit memory do not accept "cuda" without one."""
    return torch.device(device).index or 0
