"""Feature maps of torchvision's classification networks, and pyramids of them, for detectors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from ralr_tune.errors import UsageError
from ralr_tune.models.torchvision_models import names, pretrained_network

PROBE_SIDE = 256
"""Pixels of the square image that shows the strides of a network's modules."""


class Maps(nn.Module):
    """Feature maps of a network, by stride: images (N, 3, H, W) to {"8": (N, C, H / 8, W / 8), ...}."""

    def __init__(self, body: nn.Module, out_channels: list[int]) -> None:
        super().__init__()
        self.body, self.out_channels = body, out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(self.body(images))


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al. 2017, arXiv 1612.03144) on feature maps, with further levels on top."""

    def __init__(self, maps: Maps, channels: int, top: ExtraFPNBlock) -> None:
        super().__init__()
        self.maps, self.out_channels = maps, channels
        self.fpn = FeaturePyramidNetwork(maps.out_channels, channels, extra_blocks=top)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.fpn(self.maps(images))
        return found


class Extended(nn.Module):
    """Feature maps and further ones, each of half the size: the levels of SSD (Liu et al. 2016, section 2.1).

    Our choice: batch normalisation, which SSD does not have and without which a network hardly trains from scratch.
    """

    def __init__(self, maps: Maps, widths: Sequence[int], *, depthwise: bool) -> None:
        super().__init__()
        self.maps = maps
        self.out_channels = [*maps.out_channels, *widths]
        pairs = zip([maps.out_channels[-1], *widths[:-1]], widths, strict=True)
        self.extra = nn.ModuleList(_halving(width_in, width, depthwise) for width_in, width in pairs)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        levels = list(self.maps(images).values())
        for block in self.extra:
            levels.append(block(levels[-1]))
        return OrderedDict((str(number), level) for number, level in enumerate(levels))


def _halving(width_in: int, width: int, depthwise: bool) -> nn.Module:
    middle = width // 2
    return nn.Sequential(
        Conv2dNormActivation(width_in, middle, kernel_size=1),
        Conv2dNormActivation(middle, middle, stride=2, groups=middle) if depthwise else nn.Identity(),
        Conv2dNormActivation(middle, width, kernel_size=1 if depthwise else 3, stride=1 if depthwise else 2),
    )


def backbone_maps(name: str, strides: Sequence[int], *, pretrained: bool) -> Maps:
    """The feature maps of these strides of a classification network of torchvision, without its later layers.

    For each stride, the output of the last module that has it. Weights are drawn from torch's global generator, or are
    torchvision's default ones: then batch normalisation is frozen, as in torchvision's detectors. Raises UsageError.
    """
    network = _classifier(name, pretrained)
    nodes = _nodes(network, name, strides)
    channels = [width for _, width in nodes.values()]
    body = create_feature_extractor(network, {node: str(stride) for stride, (node, _) in nodes.items()})
    return Maps(freeze_norms(body) if pretrained else body, channels)


def _classifier(name: str, pretrained: bool) -> nn.Module:
    if name not in names():
        raise UsageError(f"task.backbone = {name!r}: torchvision has no such classification network")
    if pretrained:
        return pretrained_network(name)
    # these two draw their weights for seconds unless they are asked not to
    further = {"init_weights": False, "aux_logits": False} if name in {"googlenet", "inception_v3"} else {}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **further)
    return network


def _nodes(network: nn.Module, name: str, strides: Sequence[int]) -> Mapping[int, tuple[str, int]]:
    """By stride: the module whose output is used, and its channels."""
    found: dict[int, tuple[str, int]] = {}

    def noted(path: str, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] == output.shape[3]:
            stride = PROBE_SIDE // int(output.shape[2])
            if stride in strides and stride * output.shape[2] == PROBE_SIDE:
                found[stride] = path, int(output.shape[1])

    hooks = [
        module.register_forward_hook(lambda _, __, output, path=path: noted(path, output))
        for path, module in network.named_modules()
        if path
    ]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE))
    except (RuntimeError, ValueError, AssertionError) as error:  # a transformer for images of one size
        reason = str(error).partition("\n")[0]
        raise UsageError(f"task.backbone = {name!r}: takes only images of one size ({reason})") from error
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    if missing := [stride for stride in strides if stride not in found]:
        raise UsageError(
            f"task.backbone = {name!r}: has no feature maps (N, C, H, W) of stride {' and '.join(map(str, missing))}"
        )
    return {stride: found[stride] for stride in strides}


def freeze_norms(module: nn.Module) -> nn.Module:
    """The module, in which fixed weights and statistics replace every batch normalisation."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, child.eps)
            frozen.load_state_dict(child.state_dict(), strict=False)
            setattr(module, name, frozen)
        else:
            freeze_norms(child)
    return module
