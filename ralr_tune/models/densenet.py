"""DenseNet-BC for small images: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017 (arXiv 1608.06993).

Section 3 and 4.2, and the authors' code: a 3x3 convolution with 2k filters, three dense blocks of bottleneck layers
(BN-ReLU-conv1x1 with 4k filters, BN-ReLU-conv3x3 with k), transitions that halve channels and pixels, BN-ReLU, global
average pooling and one linear layer. Depth L = 6n + 4 gives n layers a block. Convolutions are initialised as in He et
al., ICCV 2015. The paper uses dropout 0.2 where data are not augmented.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ralr_tune.models.pixels import global_average

BOTTLENECK, COMPRESSION = 4, 0.5


class DenseNetBC(nn.Module):
    """Maps images (N, channels, H, W) to logits (N, classes); H and W are at least 4, intended for 32.

    `dropout`: after every convolution but the first. `memory_efficient`: a layer's normalised inputs are computed again
    in the backward pass instead of being kept, as in the authors' technical report (arXiv 1707.06990).

    Raises ValueError if the depth is not 6n + 4, or a number is out of range.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        depth: int,
        growth: int,
        dropout: float = 0.0,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth = {depth}: must be 6n + 4 with n >= 1, e.g. 40, 100, 190")
        if growth < 1:
            raise ValueError(f"growth = {growth}: must be at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout = {dropout}: must be in [0, 1)")
        width = 2 * growth
        stages: list[nn.Module] = []
        for stage in range(3):
            if stage:
                narrower = int(width * COMPRESSION)
                stages.append(Transition(width, narrower, dropout))
                width = narrower
            for _ in range((depth - 4) // 6):
                stages.append(Layer(width, growth, dropout, memory_efficient))
                width += growth
        self.stem = nn.Conv2d(channels, 2 * growth, kernel_size=3, padding=1, bias=False)
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.norm(self.stages(self.stem(images))))
        logits: Tensor = self.head(global_average(features))
        return logits


class Layer(nn.Module):
    """Adds `growth` channels to its input."""

    def __init__(self, width: int, growth: int, dropout: float, memory_efficient: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, BOTTLENECK * growth, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, kernel_size=3, padding=1, bias=False)
        self.dropout = dropout
        self.memory_efficient = memory_efficient

    def forward(self, x: Tensor) -> Tensor:
        if self.memory_efficient and self.training and x.requires_grad:
            narrow = checkpoint(self._narrow, x, use_reentrant=False)
        else:
            narrow = self._narrow(x)
        new = self.conv2(F.relu(self.norm2(_dropped(self, narrow))))
        return torch.cat([x, _dropped(self, new)], 1)

    def _narrow(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv1(F.relu(self.norm1(x)))
        return found


class Transition(nn.Module):
    """Fewer channels, a quarter of the pixels."""

    def __init__(self, width: int, narrower: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, narrower, kernel_size=1, bias=False)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(_dropped(self, self.conv(F.relu(self.norm(x)))), kernel_size=2)


def _dropped(layer: Layer | Transition, x: Tensor) -> Tensor:
    return F.dropout(x, layer.dropout, layer.training) if layer.dropout else x


def _initialise(network: nn.Module) -> None:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
