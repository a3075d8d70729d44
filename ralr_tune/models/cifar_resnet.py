"""The CIFAR ResNets of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.

Depth 6n + 2: a 3x3 convolution with 16 filters, three stages of n blocks with 16, 32 and 64 filters, global average
pooling and one linear layer. Shortcuts are option A (identity, zeros for the new channels), so they have no weights.
Convolutions are initialised as in He et al., "Delving Deep into Rectifiers", ICCV 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ralr_tune.models.pixels import global_average, subsample
from ralr_tune.models.stochastic_depth import StochasticDepth, branch_drops

STAGE_WIDTHS = (16, 32, 64)


class CifarResNet(nn.Module):
    """Maps images (N, channels, H, W) to logits (N, classes); H and W are at least 4, intended for 32.

    `stochastic_depth_prob`: of dropping the residual branch of the last block (see stochastic_depth.py). Raises
    ValueError if the depth is not 6n + 2, or the probability not in [0, 1).
    """

    def __init__(self, *, classes: int, channels: int, depth: int, stochastic_depth_prob: float = 0.0) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth = {depth}: must be 6n + 2 with n >= 1, e.g. 20, 32, 44, 56, 110")
        self.stem = _conv(channels, STAGE_WIDTHS[0], stride=1)
        self.norm = nn.BatchNorm2d(STAGE_WIDTHS[0])
        self.blocks = nn.Sequential(*_blocks((depth - 2) // 6, stochastic_depth_prob))
        self.head = nn.Linear(STAGE_WIDTHS[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(F.relu(self.norm(self.stem(images))))
        logits: Tensor = self.head(global_average(features))
        return logits


class Block(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), the paper's basic block."""

    def __init__(self, width_in: int, width: int, stride: int, drop: StochasticDepth | None = None) -> None:
        super().__init__()
        self.conv1 = _conv(width_in, width, stride)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, stride=1)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = Shortcut(stride, width - width_in)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        residual = residual if self.drop is None else self.drop(residual)
        return F.relu(residual + self.shortcut(x))


class Shortcut(nn.Module):
    """Every `stride`-th pixel, with zeros for the new channels."""

    slots: int
    """Number of networks whose channels are concatenated in the input (see training.fused)."""

    def __init__(self, stride: int, new_channels: int) -> None:
        super().__init__()
        self.stride, self.new_channels, self.slots = stride, new_channels, 1

    def forward(self, x: Tensor) -> Tensor:
        if self.new_channels == 0:
            return x
        strided = subsample(x, self.stride)
        if self.slots == 1:
            return F.pad(strided, (0, 0, 0, 0, 0, self.new_channels))
        parts = strided.unflatten(1, (self.slots, -1))  # type: ignore[no-untyped-call]
        padded: Tensor = F.pad(parts, (0, 0, 0, 0, 0, self.new_channels)).flatten(1, 2)
        return padded


def _blocks(per_stage: int, stochastic_depth_prob: float) -> list[Block]:
    drops = iter(branch_drops(stochastic_depth_prob, len(STAGE_WIDTHS) * per_stage))
    blocks, width_in = [], STAGE_WIDTHS[0]
    for width in STAGE_WIDTHS:
        for place in range(per_stage):
            stride = 2 if place == 0 and width != width_in else 1
            blocks.append(Block(width_in, width, stride, next(drops)))
            width_in = width
    return blocks


def _conv(width_in: int, width: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(width_in, width, kernel_size=3, stride=stride, padding=1, bias=False)
    with torch.no_grad():
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
