"""Numbers from a symmetric beta distribution. A module of its own: scripts that do not need it do without scipy."""

from __future__ import annotations

import torch
from scipy.special import betaincinv
from torch import Tensor


def beta_quantile(shares: Tensor, alpha: float) -> Tensor:
    """Uniform numbers as numbers from Beta(alpha, alpha): one draw for each, whatever alpha is, so that trials with
    different alphas have the same order of shares. torch's Beta does not accept a generator."""
    if alpha == 1:
        return shares
    return torch.from_numpy(betaincinv(alpha, alpha, shares.double().numpy())).to(shares.dtype)
