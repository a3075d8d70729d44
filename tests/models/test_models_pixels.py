"""Pooling: the result equals torch's, and the gradient has the memory format of the pooled tensor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ralr_tune.models.pixels import global_average, subsample

POOLINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "global average": (global_average, lambda x: x.mean(dim=(2, 3))),
    "every second": (lambda x: subsample(x, 2), lambda x: x[:, :, ::2, ::2]),
}
ORDERS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("pooling", "plain"), POOLINGS.values(), ids=POOLINGS)
def test_pooling(
    pooling: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor], order: torch.memory_format
) -> None:
    x = torch.randn(4, 6, 5, 7, dtype=torch.float64).contiguous(memory_format=order).requires_grad_()
    weights = torch.randn_like(plain(x))
    pooled, expected = pooling(x), plain(x)
    (gradient,) = torch.autograd.grad((pooled * weights).sum(), x)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    assert gradient.is_contiguous(memory_format=order)
