"""Pooling whose gradients have the memory format of the pooled tensor.

torch makes the gradients of a mean and of a slice contiguous, whatever the memory format of the input. In a network in
channels_last, activations then have the other format than their gradients, and ReLU's backward pass took 7.3 ms instead
of 0.4: a step of ResNet-20 on a CPU in bfloat16 took 156 ms instead of 128 (LOG.md, 2026-11-26).
"""

from __future__ import annotations

import torch
from torch import Tensor


def global_average(x: Tensor) -> Tensor:
    """Mean over all pixels, (N, C, H, W) to (N, C)."""
    if _is_channels_last(x):
        return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)
    return x.mean(dim=(2, 3))


def subsample(x: Tensor, stride: int) -> Tensor:
    """Every `stride`-th pixel in both directions, (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
    if _is_channels_last(x):
        return x.permute(0, 2, 3, 1)[:, ::stride, ::stride].permute(0, 3, 1, 2)
    return x[:, :, ::stride, ::stride]


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
