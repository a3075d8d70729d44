"""Opens the data and builds the detector that [task] describes."""

from __future__ import annotations

from torch import nn

from ralr_tune.kinds.detection.annotated import Source
from ralr_tune.kinds.detection.coco import read_coco
from ralr_tune.kinds.detection.loading import PictureLoader
from ralr_tune.kinds.detection.section import DetectionData, DetectionSection, VocData
from ralr_tune.kinds.detection.splits import restrict
from ralr_tune.kinds.detection.voc import read_voc
from ralr_tune.models.detectors import build_detector, input_side, longest_side


def open_source(data: DetectionData) -> Source:
    """The annotations of the data. Raises DataError."""
    if isinstance(data, VocData):
        source = read_voc(data.path, one_based=data.one_based)
    else:
        source = read_coco(data.path, box_format=data.box_format)
    return restrict(source, classes=data.classes, limit=data.limit)


def make_loader(section: DetectionSection) -> PictureLoader:
    """Reduces images to the largest size that the detector sees. `section` is resolved: it has one value per key."""
    side = largest_side(section)
    return PictureLoader(side, longest_side(side), section.data.max_pixels)


def largest_side(section: DetectionSection) -> int:
    """The largest shorter side in pixels to which the detector resizes images."""
    assert isinstance(section.model, str)
    return max(input_side(section.model, _number(section.min_size)), *section.train_sizes, 0)


def network(section: DetectionSection, classes: int) -> nn.Module:
    """A new detector. Raises UsageError."""
    assert isinstance(section.model, str)
    backbone = None if section.backbone is None else str(section.backbone)
    return build_detector(
        section.model,
        classes=classes,
        backbone=backbone,
        fpn_channels=_number(section.fpn_channels),
        head_convs=_number(section.head_convs),
        min_size=_number(section.min_size),
        train_sizes=section.train_sizes,
        pretrained=section.pretrained,
    )


def _number(value: object) -> int | None:
    """A searched key of a resolved [task]: one number, or None if it is not given."""
    assert value is None or isinstance(value, int)
    return value
