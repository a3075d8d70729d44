"""What this process may take of a GPU's memory, where other workers take of it, too.

torch holds each process to its share: whoever asks for more runs out of memory by itself, which training mends with
fewer samples or fewer trials at once, and no neighbour notices.
"""

from __future__ import annotations

import logging

import torch

from ralr_tune.errors import UsageError
from ralr_tune.machine.memory import free_bytes, gib

logger = logging.getLogger(__name__)

OUTSIDE = 2**30
"""Bytes of a share that are left to what torch's allocator neither counts nor bounds: the process's CUDA context, the
kernels that it loads when they are first used, the handles of cuBLAS and cuDNN. On an H100, with torch 2.11, 527 MiB
before the first step and 845 MiB after recorded steps of ResNet-20 (measured); the rest is a reserve."""

LEAST = 2**28
"""Bytes without which no worker begins (ours). Workspaces of cuBLAS and cuDNN alone take some
tens of MiB, and torch takes memory in blocks of 2 and 20 MiB. With less, trial after trial would fail for want of
memory, and the search would learn that of its configuration."""


def take_share(device: str, sharing: int) -> None:
    """Bounds what this process takes of a GPU that it shares with `sharing - 1` other workers; before anything is put
    there. On a CPU, or without others, nothing is done.

    The bound is an equal share, or what is free where other programs left less, which is logged. Programs that leave
    a share or more are not told from workers that hold theirs: together they may still fill the card, and whoever asks
    last runs out of memory. Raises UsageError where neither is enough to begin.
    """
    if sharing == 1 or not is_cuda(device):
        return
    index = _index(device)
    free, total = torch.cuda.mem_get_info(index)
    share = total // sharing - OUTSIDE
    bound = min(share, free + torch.cuda.memory_reserved(index))
    found = f"{device}: {gib(free)} of {gib(total)} free; one of {sharing} workers may take {gib(max(share, 0))}"
    if bound < LEAST:
        raise UsageError(
            f"{found}, and needs {gib(LEAST)} at least: start fewer --workers, or end what else runs there"
        )
    if bound < share:
        logger.warning(
            "%s. Something else holds the rest: going on with %s. Should that be too little: start fewer --workers",
            found,
            gib(bound),
        )
    torch.cuda.set_per_process_memory_fraction(bound / total, index)


def free_on(device: str) -> int:
    """Bytes that this process can still take on a device: of a GPU what is free, within its share."""
    if not is_cuda(device):
        return free_bytes()
    index = _index(device)
    free, total = torch.cuda.mem_get_info(index)
    share = int(torch.cuda.get_per_process_memory_fraction(index) * total)
    return max(0, min(free, share - torch.cuda.memory_reserved(index)))


def is_shared(device: str) -> bool:
    """Whether this process has a share of a GPU, and not all of it."""
    return is_cuda(device) and torch.cuda.get_per_process_memory_fraction(_index(device)) < 1


def is_cuda(device: str) -> bool:
    """Whether torch's name of a device ("cpu", "cuda:0") is that of a GPU."""
    return torch.device(device).type == "cuda"


def _index(device: str) -> int:
    """Functions of torch that bound memory want a number, and take no bare "cuda"."""
    return torch.device(device).index or 0
