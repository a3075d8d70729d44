"""The peak matrix throughput of the device, the reference for the operations of a row."""

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
"""Sizes of the square matrices, by kind of device. On a CPU larger ones were no faster; on a GPU none was tried."""
TURNS = 10


PRECISIONS = (torch.float32, torch.bfloat16)


class Limit(NamedTuple):
    """The fastest matrix products of a device."""

    precision: str
    """"float32" or "bfloat16"."""
    speed: float
    """Operations per second, all cores together; a multiply-add counts as two."""


@cache
def fastest_product(device: str) -> Limit:
    """The precision in which the device multiplies large matrices fastest, measured, and how fast that is.

    Measured, not taken from a data sheet: a CPU without bfloat16 units also computes in bfloat16, but slower than in
    float32, and rows reached 177% of that speed. Float32 is torch's default: without TF32.
    """
    speeds = [Limit(str(dtype).removeprefix("torch."), _speed(device, dtype)) for dtype in PRECISIONS]
    return max(speeds, key=lambda limit: limit.speed)


def _speed(device: str, dtype: torch.dtype) -> float:
    """Operations per second in the fastest of a few products of square matrices."""
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
