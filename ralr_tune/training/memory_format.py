"""Which convolutions of a network make channels last slow on a CPU."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

WEIGHTS_PER_PIXEL = 30_000
"""Weights of a convolution over pixels of its result from which channels last is slow in float32: oneDNN then takes
longer to bring the weights into its own format. Forward and backward, a 3x3 convolution of 512 channels took 1.9 times
as long at 2x2 pixels (32 images, one thread, AVX512), of 640 at 8x8 and 256 at 4x4 1.1 times, of 320 at 16x16 the same,
of 64 at 16x16 0.8 times."""

MAX_SHARE = 0.4
"""Share of a network's multiplications in such convolutions above which channels last does not pay off. Measured:
torchvision's resnet18 at 32 and 64 pixels (75% and 50%) 0.87 times as fast as in the other format, vgg11_bn at 32 (50%)
0.96; resnet18 at 96 to 224 (at most 25%) 0.98 to 1.12, wrn_28_10 at 32 (35%) 1.02 with batches of eight."""


def wide_on_few_pixels(model: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """Whether more than MAX_SHARE of the multiplications of `model`, called with images (N, *input_shape), are in
    convolutions that channels last makes slow: of neighbouring pixels, in one group, wide and with a small result.

    Calls a copy without numbers (on torch's meta device); False if that is not possible.
    """
    work = {True: 0, False: 0}

    def add(layer: nn.Module, _: object, result: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        pixels, weights = result.shape[2] * result.shape[3], layer.weight.numel()
        spatial = layer.groups == 1 and max(layer.weight.shape[2:]) > 1
        work[spatial and weights >= WEIGHTS_PER_PIXEL * pixels] += pixels * weights

    network = copy.deepcopy(model).to("meta").eval()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(add)
    try:
        with torch.no_grad():
            network(torch.empty(1, *input_shape, device="meta"))
    except (RuntimeError, NotImplementedError):  # an operation without a form for the meta device
        return False
    return work[True] > MAX_SHARE * (work[True] + work[False])
