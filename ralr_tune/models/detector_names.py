"""The names of detectors, without importing torch: a study file is checked in a fraction of a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ralr_tune.nearest import nearest

TORCHVISION_DETECTORS = "torchvision:"


@dataclass(frozen=True)
class DetectorSettings:
    """What a family uses unless a study says otherwise."""

    backbone: str
    """A classification network of torchvision."""
    strides: tuple[int, ...]
    """Of the backbone's feature maps that are used, in pixels."""
    fpn_channels: int | None
    """None: it has no feature pyramid."""
    head_convs: int | None
    """None: its heads have no convolutions before their output."""
    min_size: int


FAMILIES: Mapping[str, DetectorSettings] = {
    "small_fcos": DetectorSettings("resnet18", (8, 16), fpn_channels=64, head_convs=2, min_size=160),
    "fcos": DetectorSettings("resnet50", (8, 16, 32), fpn_channels=256, head_convs=4, min_size=800),
    "retinanet": DetectorSettings("resnet50", (8, 16, 32), fpn_channels=256, head_convs=4, min_size=800),
    "faster_rcnn": DetectorSettings("resnet50", (4, 8, 16, 32), fpn_channels=256, head_convs=1, min_size=800),
    "ssd": DetectorSettings("vgg16", (8, 16), fpn_channels=None, head_convs=None, min_size=300),
    "ssdlite": DetectorSettings("mobilenet_v3_large", (16, 32), fpn_channels=None, head_convs=None, min_size=320),
}
"""small_fcos is for two CPU cores (3.0 million weights; our choice). The others have the sizes of torchvision's
fcos_resnet50_fpn, retinanet_resnet50_fpn, fasterrcnn_resnet50_fpn, ssd300_vgg16 and ssdlite320_mobilenet_v3_large."""


def check_detector(name: str) -> str:
    """The name. Raises ValueError if it is none; whether torchvision has NAME is only known to torchvision."""
    if name in FAMILIES or (name.startswith(TORCHVISION_DETECTORS) and len(name) > len(TORCHVISION_DETECTORS)):
        return name
    near = nearest(name, FAMILIES, cutoff=0.4)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"no such detector{meant}; allowed: {', '.join(FAMILIES)}, torchvision:NAME")
