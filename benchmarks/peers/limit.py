"""What the device can do at most: the multiplications of a row are held against it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers.case import VALIDATION
from ralr_tune.models import registry

SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices, by the kind of device. On a CPU larger ones were no faster; on a GPU none was tried."""
TURNS = 10


PRECISIONS = (torch.float32, torch.bfloat16)


class Limit(NamedTuple):
    """The fastest matrix products of a device."""

    precision: str
    """"float32" or "bfloat16"."""
    speed: float
    """Operations a second, all cores together; a multiplication and an addition are two."""


@cache
def fastest_product(device: str) -> Limit:
    """The precision in which the device multiplies large matrices fastest, measured, and how fast that is.

    Measured and not looked up: a CPU without bfloat16 units computes in bfloat16, too, but slower than in float32, and
    rows held against that speed came to 177% of it. Float32 is as torch has it: without TF32.
    """
    speeds = [Limit(str(dtype).removeprefix("torch."), _speed(device, dtype)) for dtype in PRECISIONS]
    return max(speeds, key=lambda limit: limit.speed)


def _speed(device: str, dtype: torch.dtype) -> float:
    """Operations a second in the fastest of a few products of square matrices."""
    kind = torch.device(device).type
    side = SIDE[kind]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(TURNS):
        began = time.perf_counter()
        _ = left @ right
        if kind == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


@cache
def operations(model: str, *, channels: int, size: int, classes: int) -> float:
    """Of products and convolutions for one training image: a step, and its share of the epoch's evaluation."""
    network = registry.build(model, classes=classes, channels=channels, size=size)
    images = torch.zeros(2, channels, size, size)
    forward = _counted(lambda: network(images))
    step = _counted(lambda: network(images).sum().backward())
    return (step + forward * VALIDATION / (1 - VALIDATION)) / len(images)


def _counted(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())
