"""Chooses a network's floating-point format and memory format."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ralr_tune.training.memory_format import wide_on_few_pixels

MIN_PIXELS = 16
"""Below this height or width only CPUs were measured (with 8 pixels): there channels last is faster for all images, and
bfloat16 if the CPU has matrix units for it."""

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
    model: nn.Module | None = None,
    matrix_products: bool = False,
) -> Precision:
    """As configured in `wanted` and `channels_last`; "auto" depends on the device, the images' shape, (C, H, W), and on
    a CPU in float32 on the network, if `model` is given. It is called once, on the meta device. `matrix_products`: see
    `tasks.base.Capabilities`."""
    images, kind = len(input_shape) == 3, torch.device(device).type
    large = images and min(input_shape[1:]) >= MIN_PIXELS
    if wanted == "auto" and matrix_products and not images:
        bfloat16, reason = _choose_for_products(kind)
    else:
        bfloat16, reason = _choose_format(wanted, kind, large=large, images=images)
    if channels_last == "auto":
        channels_last = (images and kind == "cpu") or (large and kind == "cuda")
        if channels_last and kind == "cpu" and not bfloat16 and model is not None:  # bfloat16: not measured
            channels_last = not wide_on_few_pixels(model, input_shape)
    return Precision(bfloat16, channels_last, reason)


def _choose_for_products(kind: str) -> tuple[bool, str]:
    """Whether to use bfloat16 for products of matrices, and the reason.

    Steps of Transformers and LSTMs of width 16 to 256 that translate took 1.15 to 1.6 times as long in float32
    (measured on one thread of an AMD EPYC with AVX512-BF16).
    """
    if kind != "cpu":
        return False, "float32: bfloat16 was not measured for this kind of network on a GPU"
    if not has_bfloat16(kind):
        return False, f"float32: bfloat16 is not faster on this {kind}"
    return True, f"bfloat16: faster on this {kind}"


def _choose_format(
    wanted: Literal["auto", "float32", "bfloat16"], kind: str, *, large: bool, images: bool
) -> tuple[bool, str]:
    """Whether to use bfloat16, and the reason."""
    if wanted != "auto":
        return wanted == "bfloat16", "as configured"
    if not large and not (images and kind == "cpu" and has_matrix_units()):
        return False, f"float32: below {MIN_PIXELS} pixels bfloat16 may be slower"
    if not has_bfloat16(kind):
        return False, f"float32: bfloat16 is not faster on this {kind}"
    return True, f"bfloat16: faster on this {kind}"


@cache
def has_bfloat16(kind: str) -> bool:
    """Whether this kind of device computes faster in bfloat16 than in float32.

    AVX512-BF16 alone is not sufficient: on an Intel Xeon that has it without AMX, convolutions took 1.6 to 2.6 times as
    long as in float32, and a whole step of ResNet-20 1.2 times (measured; torch 2.15).
    """
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind == "cpu" and (has_matrix_units() or _cpu_flags() >= {"AuthenticAMD", "avx512_bf16"})


def has_matrix_units() -> bool:
    """Whether the CPU has matrix units (AMX) for bfloat16."""
    return "amx_bf16" in _cpu_flags()


@cache
def can_bfloat16(kind: str) -> bool:
    """Whether this kind of device supports bfloat16 at all, even slowly."""
    ones = torch.ones(2, 2, device=kind)
    try:
        # a device without support raises, or warns and computes in float32
        with warnings.catch_warnings(action="ignore"), torch.autocast(kind, dtype=torch.bfloat16):
            return (ones @ ones).dtype == torch.bfloat16
    except RuntimeError:
        return False


@cache
def _cpu_flags() -> frozenset[str]:
    """All words of /proc/cpuinfo, which include the CPU's flags."""
    try:
        return frozenset(CPUINFO.read_text().split())
    except OSError:
        return frozenset()
