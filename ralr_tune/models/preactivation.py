"""Residual networks that normalise before they convolve: pre-activation ResNets and wide ResNets, for small images.

He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016 (arXiv 1603.05027), section 4 and the appendix:
    x + conv(relu(norm(conv(relu(norm(x)))))); widths 16, 32, 64; depth 6n + 2.
Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016 (arXiv 1605.07146), section 2 and table 1:
    the same block with widths 16k, 32k, 64k, depth 6n + 4, and dropout between its convolutions (0.3 on CIFAR).

Where the width changes, the shortcut is a 1x1 convolution of the normalised input, as in the authors' code: it counts
as a layer in the depth of the second paper and not of the first. Convolutions are initialised as in He et al., ICCV
2015.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ralr_tune.models.pixels import global_average
from ralr_tune.models.stochastic_depth import StochasticDepth, branch_drops

STEM_WIDTH = 16
STAGE_WIDTHS = (16, 32, 64)


class PreActivationResNet(nn.Module):
    """Maps images (N, channels, H, W) to logits (N, classes); H and W are at least 4, intended for 32.

    `per_stage` blocks in each of three stages, whose widths are 16, 32 and 64 times `widen`; `dropout`: between the two
    convolutions of a block; `stochastic_depth_prob`: of dropping the residual branch of the last block (see
    stochastic_depth.py). Raises ValueError if a number is out of range.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        per_stage: int,
        widen: int = 1,
        dropout: float = 0.0,
        stochastic_depth_prob: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout = {dropout}: must be in [0, 1)")
        if widen < 1:
            raise ValueError(f"widen = {widen}: must be at least 1")
        drops = iter(branch_drops(stochastic_depth_prob, len(STAGE_WIDTHS) * per_stage))
        blocks, width = [], STEM_WIDTH
        for stage, stage_width in enumerate(STAGE_WIDTHS):
            for place in range(per_stage):
                stride = 2 if stage and not place else 1
                blocks.append(Block(width, stage_width * widen, stride, dropout, next(drops)))
                width = stage_width * widen
        self.stem = _conv(channels, STEM_WIDTH)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.norm(self.blocks(self.stem(images))))
        logits: Tensor = self.head(global_average(features))
        return logits


class Block(nn.Module):
    """x + conv(dropout(relu(norm(conv(relu(norm(x)))))))."""

    def __init__(self, width_in: int, width: int, stride: int, dropout: float, drop: StochasticDepth | None) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width_in)
        self.conv1 = _conv(width_in, width, stride=stride)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width)
        changes = stride != 1 or width != width_in
        self.shortcut = _conv(width_in, width, kernel=1, stride=stride) if changes else None
        self.dropout, self.drop = dropout, drop

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        found = F.relu(self.norm2(self.conv1(active)))
        if self.dropout:
            found = F.dropout(found, self.dropout, self.training)
        residual = self.conv2(found)
        added: Tensor = kept + (residual if self.drop is None else self.drop(residual))
        return added


def preresnet(depth: int, *, classes: int, channels: int, stochastic_depth_prob: float = 0.0) -> PreActivationResNet:
    """A pre-activation ResNet. Raises ValueError if the depth is not 6n + 2."""
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth = {depth}: must be 6n + 2 with n >= 1, e.g. 20, 56, 110")
    return PreActivationResNet(
        classes=classes,
        channels=channels,
        per_stage=(depth - 2) // 6,
        stochastic_depth_prob=stochastic_depth_prob,
    )


def wide_resnet(
    depth: int, widen: int, *, classes: int, channels: int, dropout: float = 0.0, stochastic_depth_prob: float = 0.0
) -> PreActivationResNet:
    """WRN-depth-widen. Raises ValueError if the depth is not 6n + 4."""
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth = {depth}: must be 6n + 4 with n >= 1, e.g. 16, 28, 40")
    return PreActivationResNet(
        classes=classes,
        channels=channels,
        per_stage=(depth - 4) // 6,
        widen=widen,
        dropout=dropout,
        stochastic_depth_prob=stochastic_depth_prob,
    )


def _conv(width_in: int, width: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(width_in, width, kernel, stride=stride, padding=kernel // 2, bias=False)
    with torch.no_grad():
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
