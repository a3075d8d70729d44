"""Which numbers a network computes with, and in which order they lie in memory."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch

SMALLEST_PIXELS = 16
"""Below this height or width it is known of CPUs alone what is faster (measured with 8): channels last wherever there
are images, and bfloat16 where there are matrix units for it."""

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Precision:
    """A choice and its reason, for the log."""

    bfloat16: bool
    channels_last: bool
    reason: str

    @property
    def name(self) -> Literal["float32", "bfloat16"]:
        return "bfloat16" if self.bfloat16 else "float32"

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.preserve_format

    def autocast(self, device: str) -> AbstractContextManager[object]:
        """The context to call the model in."""
        if not self.bfloat16:
            return nullcontext()
        return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def choose_precision(
    wanted: Literal["auto", "float32", "bfloat16"],
    channels_last: bool | Literal["auto"],
    *,
    device: str,
    input_shape: tuple[int, ...],
) -> Precision:
    """`wanted` and `channels_last` as asked; "auto" by device and size of the images, (C, H, W)."""
    images, kind = len(input_shape) == 3, torch.device(device).type
    large = images and min(input_shape[1:]) >= SMALLEST_PIXELS
    if channels_last == "auto":
        channels_last = (images and kind == "cpu") or (large and kind == "cuda")
    if wanted != "auto":
        return Precision(wanted == "bfloat16", channels_last, "as asked")
    if not large and not (images and kind == "cpu" and has_matrix_units()):
        return Precision(False, channels_last, f"float32: below {SMALLEST_PIXELS} pixels bfloat16 may be slower")
    if not has_bfloat16(kind):
        return Precision(False, channels_last, f"float32: this {kind} is no faster in bfloat16")
    return Precision(True, channels_last, f"bfloat16: this {kind} is faster in it")


@cache
def has_bfloat16(kind: str) -> bool:
    """Whether this kind of device computes faster in bfloat16 than in float32.

    AVX512-BF16 alone does not say so: on an Intel Xeon that has it without AMX, convolutions took 1.6 to 2.6 times as
    long as in float32, and a whole step of ResNet-20 1.2 times (measured; torch 2.15).
    """
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind == "cpu" and (has_matrix_units() or _words() >= {"AuthenticAMD", "avx512_bf16"})


def has_matrix_units() -> bool:
    """Whether the CPU has some for bfloat16."""
    return "amx_bf16" in _words()


@cache
def can_bfloat16(kind: str) -> bool:
    """Whether this kind of device computes in bfloat16 at all, however slowly."""
    ones = torch.ones(2, 2, device=kind)
    try:
        # a device that cannot raises, or warns and computes in float32
        with warnings.catch_warnings(action="ignore"), torch.autocast(kind, dtype=torch.bfloat16):
            return (ones @ ones).dtype == torch.bfloat16
    except RuntimeError:
        return False


@cache
def _words() -> frozenset[str]:
    """What the system says of the CPU."""
    try:
        return frozenset(CPUINFO.read_text().split())
    except OSError:
        return frozenset()
