"""torchvision's detectors by name: families with any backbone, and torchvision's own ones with their sizes.

A detector maps, in training, images and targets to a dict of losses, and otherwise images to their detections
(torchvision.models.detection). Class 0 is the background.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torchvision.models
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from ralr_tune.errors import UsageError
from ralr_tune.models.backbones import Extended, Pyramid, backbone_maps, freeze_norms
from ralr_tune.models.detector_names import FAMILIES, TORCHVISION_DETECTORS, DetectorSettings
from ralr_tune.models.torchvision_models import copy_matching, pretrained_network, weights_file
from ralr_tune.nearest import nearest

LONGEST = 1333 / 800
"""Limit of the longer side as a multiple of the shorter side, torchvision's default."""


TORCHVISION_SIDE = 800
"""The default of torchvision's own detectors; its SSD and SSDlite reduce images further by themselves."""


@dataclass(frozen=True)
class _Wanted:
    """A detector of a family."""

    outputs: int
    """Classes, background included."""
    settings: DetectorSettings
    pretrained: bool

    def pyramid(self, top: ExtraFPNBlock) -> Pyramid:
        maps = backbone_maps(self.settings.backbone, self.settings.strides, pretrained=self.pretrained)
        assert self.settings.fpn_channels is not None
        return Pyramid(maps, self.settings.fpn_channels, top)

    def dense_pyramid(self) -> tuple[Pyramid, list[int]]:
        """A pyramid for one-stage detectors, with two further levels above stride 32, otherwise one; its strides."""
        strides, channels = list(self.settings.strides), self.settings.fpn_channels
        deep = strides[-1] >= 32
        pyramid = self.pyramid(LastLevelP6P7(channels, channels) if deep else LastLevelMaxPool())
        return pyramid, strides + [strides[-1] * 2 ** (n + 1) for n in range(2 if deep else 1)]

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"min_size": self.settings.min_size, "max_size": longest_side(self.settings.min_size)}


def longest_side(min_size: int) -> int:
    """Limit of an image's longer side in pixels."""
    return round(min_size * LONGEST)


def build_detector(
    name: str,
    *,
    classes: int,
    backbone: str | None = None,
    fpn_channels: int | None = None,
    head_convs: int | None = None,
    min_size: int | None = None,
    train_sizes: Sequence[int] = (),
    pretrained: bool = False,
) -> nn.Module:
    """A new detector of `classes` classes; None: the family's own value (see `detector_names.FAMILIES`).

    Its weights are drawn from torch's global generator, except pretrained ones. `train_sizes`: in training, each image
    is resized to one of these shorter sides or `min_size`, drawn from torch's global generator. Raises UsageError.
    """
    changes = {"backbone": backbone, "fpn_channels": fpn_channels, "head_convs": head_convs, "min_size": min_size}
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        if name in FAMILIES:
            model = _of_family(name, classes + 1, given, pretrained)
        else:
            model = _of_torchvision(own_name(name), classes + 1, given, pretrained)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"task.model = {name!r}: {error}") from error
    if train_sizes:
        _draw_sizes(model, name, train_sizes)
    _return_float32(model)
    return model


def input_side(name: str, min_size: int | None) -> int:
    """The shorter side in pixels to which the detector resizes images."""
    if min_size is not None:
        return min_size
    return FAMILIES[name].min_size if name in FAMILIES else TORCHVISION_SIDE


def pretrained_file(name: str, backbone: str | None) -> Path:
    """Where torch.hub keeps the weights of a pretrained detector, downloaded or not. Raises UsageError."""
    return weights_file((backbone or FAMILIES[name].backbone) if name in FAMILIES else own_name(name))


def own_name(name: str) -> str:
    """torchvision's name of a detector that is given as torchvision:NAME."""
    return name.removeprefix(TORCHVISION_DETECTORS)


# ---------------------------------------------------------------- families


def _of_family(name: str, outputs: int, given: Mapping[str, Any], pretrained: bool) -> nn.Module:
    settings = FAMILIES[name]
    for key in ("fpn_channels", "head_convs"):
        if key in given and getattr(settings, key) is None:
            raise UsageError(f"task.{key} = {given[key]}: {name} has none; leave it out")
    chosen = DetectorSettings(**{**vars(settings), **given})
    return _BUILDERS[name](_Wanted(outputs, chosen, pretrained))


def _fcos(wanted: _Wanted) -> nn.Module:
    """Tian et al. 2019, arXiv 1904.01355; one anchor a place, as large as its stride."""
    pyramid, strides = wanted.dense_pyramid()
    anchors = AnchorGenerator(tuple((stride,) for stride in strides), ((1.0,),) * len(strides))
    head = FCOSHead(pyramid.out_channels, 1, wanted.outputs, num_convs=wanted.settings.head_convs)
    model: nn.Module = detection.FCOS(pyramid, wanted.outputs, anchor_generator=anchors, head=head, **wanted.sizes)
    return model


def _retinanet(wanted: _Wanted) -> nn.Module:
    """Lin et al. 2017, arXiv 1708.02002; nine anchors a place, from four times its stride on."""
    pyramid, strides = wanted.dense_pyramid()
    sizes = tuple(tuple(round(4 * stride * 2 ** (third / 3)) for third in range(3)) for stride in strides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    head = RetinaNetHead(pyramid.out_channels, anchors.num_anchors_per_location()[0], wanted.outputs)
    for part in (head.classification_head, head.regression_head):
        if (wanted.settings.head_convs or 0) > len(part.conv):
            raise UsageError(f"task.head_convs = {wanted.settings.head_convs}: at most {len(part.conv)} for retinanet")
        part.conv = part.conv[: wanted.settings.head_convs]
    model: nn.Module = detection.RetinaNet(pyramid, wanted.outputs, anchor_generator=anchors, head=head, **wanted.sizes)
    return model


def _faster_rcnn(wanted: _Wanted) -> nn.Module:
    """Ren et al. 2015, arXiv 1506.01497, with a feature pyramid: three anchors a place, of eight times its stride."""
    pyramid = wanted.pyramid(LastLevelMaxPool())
    strides = [*wanted.settings.strides, 2 * wanted.settings.strides[-1]]
    anchors = AnchorGenerator(tuple((8 * stride,) for stride in strides), ((0.5, 1.0, 2.0),) * len(strides))
    model: nn.Module = detection.FasterRCNN(
        pyramid,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(pyramid.out_channels, 3, conv_depth=wanted.settings.head_convs),
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign([str(each) for each in wanted.settings.strides], 7, 2),
        box_head=TwoMLPHead(pyramid.out_channels * 7**2, 4 * pyramid.out_channels),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(4 * pyramid.out_channels, wanted.outputs),
        **wanted.sizes,
    )
    return model


def _ssd(wanted: _Wanted, *, lite: bool) -> nn.Module:
    """Liu et al. 2016, arXiv 1512.02325; lite: Sandler et al. 2018, arXiv 1801.04381, section 6.2."""
    settings = wanted.settings
    maps = backbone_maps(settings.backbone, settings.strides, pretrained=wanted.pretrained)
    levels = Extended(maps, (512, 256, 256, 128) if lite else (512, 256, 256, 256), depthwise=lite)
    ratios = [[2, 3]] * 6 if lite else [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
    anchors = DefaultBoxGenerator(ratios, min_ratio=0.2 if lite else 0.15, max_ratio=0.95 if lite else 0.9)
    counts = anchors.num_anchors_per_location()
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    head = SSDLiteHead(levels.out_channels, counts, wanted.outputs, norm) if lite else None
    side = settings.min_size
    model: nn.Module = detection.ssd.SSD(levels, anchors, (side, side), wanted.outputs, head=head)
    return model


_BUILDERS: Mapping[str, Callable[[_Wanted], nn.Module]] = {
    "small_fcos": _fcos,
    "fcos": _fcos,
    "retinanet": _retinanet,
    "faster_rcnn": _faster_rcnn,
    "ssd": partial(_ssd, lite=False),
    "ssdlite": partial(_ssd, lite=True),
}


# ---------------------------------------------------------------- torchvision's own


def detector_names() -> list[str]:
    """The detectors of torchvision that return boxes alone."""
    found = torchvision.models.list_models(module=detection)
    return [name for name in found if not name.startswith(("maskrcnn", "keypointrcnn"))]


def _of_torchvision(name: str, outputs: int, given: Mapping[str, Any], pretrained: bool) -> nn.Module:
    """With `pretrained`, torchvision's default weights of the whole detector, except of layers whose shape depends on
    the classes; batch normalisation is frozen where these weights were trained so."""
    if name not in detector_names():
        near = nearest(name, detector_names(), count=3, cutoff=0.4)
        similar = ", ".join(f"torchvision:{other}" for other in near) or "none"
        raise UsageError(
            f"task.model = 'torchvision:{name}': torchvision has no such detector; similar names: {similar}"
        )
    sized = "min_size" in given and not name.startswith("ssd")
    for key in given:
        if not (key == "min_size" and sized):
            raise UsageError(f"task.{key} = {given[key]}: torchvision:{name} has its own; leave it out")
    sizes = {"min_size": given["min_size"], "max_size": longest_side(given["min_size"])} if sized else {}
    model: nn.Module = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=outputs, **sizes
    )
    if pretrained:
        source = pretrained_network(name)
        copy_matching(source, model)
        if any(isinstance(module, FrozenBatchNorm2d) for module in source.modules()):
            freeze_norms(model)
    return model


# ---------------------------------------------------------------- all


def _draw_sizes(model: nn.Module, name: str, train_sizes: Sequence[int]) -> None:
    """torchvision's transform draws one of its sizes in training, and uses the last one otherwise."""
    transform: Any = model.transform
    if transform.fixed_size is not None:
        raise UsageError(f"task.train_sizes = {list(train_sizes)}: {name} resizes all images to one size; leave it out")
    (own,) = transform.min_size
    transform.min_size = (*(size for size in train_sizes if size != own), own)
    transform.max_size = longest_side(max(transform.min_size))


def _return_float32(model: nn.Module) -> None:
    """Heads return float32 also under autocast: boxes of hundreds of pixels do not fit into bfloat16's eight bits."""
    for name in ("head", "rpn.head", "roi_heads.box_predictor"):
        try:
            part = model.get_submodule(name)
        except AttributeError:
            continue
        part.register_forward_hook(_as_float32)


def _as_float32(module: nn.Module, inputs: Any, output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, dict):
        return {name: _as_float32(module, inputs, each) for name, each in output.items()}
    return type(output)(_as_float32(module, inputs, each) for each in output)
