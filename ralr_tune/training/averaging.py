"""An exponential moving average of a network's weights, which is evaluated and kept in place of the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """average = d * average + (1 - d) * weights after every step; d = min(decay, (1 + t) / (10 + t)) in step t.

    The warm-up of the decay is that of TensorFlow's ExponentialMovingAverage (its `num_updates`): without it, the
    average of a short run would still contain the initial weights. Floating-point buffers are averaged, too, as in
    torchvision's training reference: the statistics of batch normalisation then belong to the same steps as the weights
    (our choice; copied ones would belong to the last weights). Other buffers are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """`decay` in [0, 1). The average starts as a copy of `network`, on its device and in its memory format."""
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.updates = 0
        """t: steps that are in the average."""

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Takes in the weights after a step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own, new = _tensors(self.network), _tensors(network)
        averaged = [place for place, tensor in enumerate(own) if tensor.is_floating_point()]
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average([own[place] for place in averaged], [new[place] for place in averaged], 0)
        for mine, theirs in zip(own, new, strict=True):
            if not mine.is_floating_point():
                mine.copy_(theirs)
        self.updates += 1


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
