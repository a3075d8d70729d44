"""Stochastic depth: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016 (arXiv 1603.09382).

The residual branch of a block is dropped with a probability that grows linearly from the first block to the last
(section 3, the linear decay rule), for each sample on its own, as in torchvision ("row"). The paper drops it for the
whole batch and scales at test time; here what is kept is scaled in training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Drops its input, (N, C, H, W), for each sample with probability `p`. Draws from torch's global generator."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, residual: Tensor) -> Tensor:
        if not self.training:
            return residual
        kept = torch.empty(len(residual), 1, 1, 1, dtype=residual.dtype, device=residual.device)
        return residual * kept.bernoulli_(1 - self.p).div_(1 - self.p)


def branch_drops(probability: float, blocks: int) -> list[StochasticDepth | None]:
    """What each of the blocks applies to its residual branch; `probability`: of dropping that of the last block.

    None for all if it is 0: the network is then the same as without. Raises ValueError outside [0, 1).
    """
    if not 0 <= probability < 1:
        raise ValueError(f"stochastic_depth_prob = {probability}: must be in [0, 1)")
    if probability == 0:
        return [None] * blocks
    return [StochasticDepth(probability * block / blocks) for block in range(1, blocks + 1)]
