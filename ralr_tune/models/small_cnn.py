"""A small convolutional network, designed for this package, that trains in seconds on one CPU core."""

from __future__ import annotations

from torch import Tensor, nn

from ralr_tune.models.pixels import global_average

MIN_SIZE = 4
MAX_WIDENING = 8
"""The largest width of a stage, as a multiple of the first stage's."""


class SmallCNN(nn.Module):
    """Maps images (N, channels, H, W) to logits (N, classes).

    Stages of 3x3 convolution, batch normalisation, ReLU and 2x2 average pooling halve the image until it is 4 to 7
    pixels wide (8: one stage, 28: two, 32: three, 224: five); one more convolution, global average pooling and a linear
    layer follow. Average pooling, since maximum pooling lost one point on the digits (mean of four seeds at two rates).

    Raises ValueError for sizes below 4 pixels, a width below 1 or a dropout outside [0, 1).
    """

    def __init__(self, *, classes: int, channels: int, size: int, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        _check(size, width, dropout)
        widths = [width * min(2**stage, MAX_WIDENING) for stage in range(_halvings(size) + 1)]
        stages = [_stage(w_in, w, pool=True) for w_in, w in zip([channels, *widths], widths[:-1], strict=False)]
        self.features = nn.Sequential(*stages, _stage(widths[-2], widths[-1], pool=False))
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(global_average(self.features(images)))
        return logits


def _halvings(size: int) -> int:
    return max(1, (size // MIN_SIZE).bit_length() - 1)


def _stage(width_in: int, width: int, *, pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(width_in, width, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers, nn.AvgPool2d(2)) if pool else nn.Sequential(*layers)


def _check(size: int, width: int, dropout: float) -> None:
    if size < MIN_SIZE:
        raise ValueError(f"images of {size} pixels: small_cnn needs at least {MIN_SIZE}")
    if width < 1:
        raise ValueError(f"width = {width}: must be at least 1")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout = {dropout}: must be in [0, 1)")
