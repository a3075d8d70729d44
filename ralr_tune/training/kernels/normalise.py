"""Batch normalisation with an optional sum, ReLU and pooling after it, in one kernel (normalise.cpp)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ralr_tune.training.kernels.library import kernels

LANES = 16
"""Channels per vector (normalise.cpp)."""

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class Norm(NamedTuple):
    """The parameters of a batch normalisation of C channels: tensors (C,) and two numbers."""

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_variance: Tensor
    momentum: float
    epsilon: float


def normalised(
    x: Tensor, norm: Norm, other: Tensor | None = None, *, relu: bool, pool: bool = False, training: bool = True
) -> Tensor:
    """relu(batch_norm(x) + other) of samples (N, C, H, W); equals torch's except for intermediate rounding.

    `pool`: followed by the mean of each 2x2 pixels; only with a ReLU and without `other`. Training updates the running
    mean and variance; otherwise the normalisation uses them. Falls back to torch's operators if the kernel does not
    support the tensors (see `fits`), and for gradients without training.
    """
    if fits(x, norm, other) and not (pool and (x.shape[1] % LANES or x.shape[2] % 2 or x.shape[3] % 2)):
        if training:
            y: Tensor = _Normalised.apply(x, other, norm, norm.weight, norm.bias, relu, pool)
            return y
        if not torch.is_grad_enabled():
            return _evaluated(x, norm, other, relu, pool)
    mean, variance = norm.running_mean, norm.running_variance
    y = F.batch_norm(x, mean, variance, norm.weight, norm.bias, training, norm.momentum, norm.epsilon)
    y = y if other is None else y + other
    y = F.relu(y, inplace=True) if relu else y
    return F.avg_pool2d(y, 2) if pool else y


def fits(x: Tensor, norm: Norm, other: Tensor | None) -> bool:
    """Whether the kernel supports the tensors: on a CPU, channels last, float32 or bfloat16, at least two pixels, in
    rows of whole vectors."""
    if x.device.type != "cpu" or x.dtype not in DTYPES or x.ndim != 4 or not _is_channels_last(x):
        return False
    pixels, channels = x.numel() // max(1, x.shape[1]), x.shape[1]
    if pixels < 2 or pixels % _pixels_per_row(channels) or not all(map(_is_plain, norm[:4])):
        return False
    return other is None or (other.shape == x.shape and other.dtype == x.dtype and _is_channels_last(other))


def _pixels_per_row(channels: int) -> int:
    """The fewest pixels whose numbers fill whole vectors: 1 with 64 channels, 4 with the 60 of a DenseNet's layer."""
    return LANES // math.gcd(channels, LANES)


def _is_plain(each: Tensor | None) -> bool:
    return each is not None and each.dtype == torch.float32 and each.is_contiguous()


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _evaluated(x: Tensor, norm: Norm, other: Tensor | None, relu: bool, pool: bool) -> Tensor:
    y = _like(x[:, :, ::2, ::2] if pool else x)
    kernels().call(
        f"evaluate_{DTYPES[x.dtype]}", *map(_address, (x, other, y, *norm[:4])), norm.epsilon,
        *_size(x, pool), relu, torch.get_num_threads(),
    )  # fmt: skip
    return y


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, other: Tensor | None, norm: Norm, weight: Tensor, bias: Tensor, relu: bool, pool: bool
    ) -> Tensor:
        """Weight and bias are also separate arguments: autograd does not look into tuples."""
        y = _like(x[:, :, ::2, ::2] if pool else x)
        kept = torch.empty(2, x.shape[1], dtype=torch.float32, device=x.device)
        kernels().call(
            f"forward_{DTYPES[x.dtype]}", *map(_address, (x, other, y, *norm[:4])), norm.momentum, norm.epsilon,
            *_size(x, pool), relu, kept.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(x, y if relu and other is not None else None, weight, bias, kept)
        ctx.relu, ctx.pool, ctx.summed = relu, pool, other is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, bias, kept = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, dweight, dbias = _like(x), torch.empty_like(weight), torch.empty_like(bias)
        passed = None if y is None else _like(x)
        kernels().call(
            f"backward_{DTYPES[x.dtype]}", *map(_address, (dy, x, y, passed, dx, weight, bias, kept)),
            *_size(x, ctx.pool), ctx.relu, dweight.data_ptr(), dbias.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        summed = (dy if passed is None else passed) if ctx.summed else None
        return dx, summed, None, dweight, dbias, None, None


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _size(x: Tensor, pool: bool) -> tuple[int, int, int]:
    """Number of pixels of all samples, of channels, and of means in a row of the result."""
    return x.numel() // x.shape[1], x.shape[1], x.shape[3] // 2 if pool else 0


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
