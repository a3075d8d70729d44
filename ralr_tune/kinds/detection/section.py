"""The [task] table of kind "detection", and its keys of [training]."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, Field

from ralr_tune.models.detector_names import FAMILIES, check_detector
from ralr_tune.studyfile.sections import TaskSection
from ralr_tune.studyfile.values import Choosable, Count, Frozen, Searchable, each_once, known, problem, within


class _Annotated(Frozen):
    path: str
    """The folder with images and annotations, relative to where the command runs."""
    limit: Count | None = None
    """Train on only this many images (a seeded subset)."""
    classes: Annotated[tuple[str | int, ...], Field(strict=False, min_length=1)] | None = None
    """Use only the objects of these classes, given by name or index."""
    max_pixels: Count | None = None
    """Maximum of one image as decoded; None: 89 million, Pillow's limit."""


class VocData(_Annotated):
    """Pascal VOC: one XML file for each image."""

    source: Literal["voc"]
    """Annotations in the Pascal VOC format."""
    one_based: bool = True
    """Whether the first pixel is 1, as VOC counts; false for tools that count from 0."""


class CocoData(_Annotated):
    """COCO: one JSON file for each split."""

    source: Literal["coco"]
    """Annotations in the COCO format."""
    box_format: Literal["xywh", "xyxy"] = "xywh"
    """What the four numbers of `bbox` are: COCO's corner and size, or two corners, as some tools write."""


DetectionData: TypeAlias = Annotated[VocData | CocoData, Field(discriminator="source")]


def _detector(value: str) -> str:
    try:
        return check_detector(value)
    except ValueError as error:
        raise problem(str(error)) from None


Size = Annotated[int, within("task.min_size")]


class DetectionSection(TaskSection):
    """[task] kind = "detection"."""

    families: ClassVar[tuple[str, ...]] = tuple(FAMILIES)

    data: DetectionData
    """Where images and boxes come from: one of the tables below."""
    model: Choosable[Annotated[str, AfterValidator(_detector)]] = "small_fcos"
    """small_fcos, fcos, retinanet, faster_rcnn, ssd, ssdlite, or `torchvision:NAME` for a detector of torchvision."""
    backbone: Choosable[str] | None = None
    """A classification network of torchvision, for the models above without `torchvision:`; None: the model's own."""
    fpn_channels: Searchable[Annotated[int, within("task.fpn_channels")]] | None = None
    """Channels of the feature pyramid; None: the model's own."""
    head_convs: Searchable[Annotated[int, within("task.head_convs")]] | None = None
    """Convolutions of each head before its output; None: the model's own."""
    min_size: Searchable[Size] | None = None
    """Images are resized so that their shorter side has so many pixels; None: the model's own."""
    train_sizes: Annotated[tuple[Size, ...], Field(strict=False)] = ()
    """Further shorter sides of training images: one is drawn for each image, `min_size` included."""
    pretrained: bool = False
    """Start from torchvision's default weights, of the backbone or of `torchvision:NAME`. Batch normalisation of a
    pretrained backbone stays as it is; otherwise it is trained."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the training images that is held out if there is no validation split."""
    evaluate_every: Count = 1
    """Epochs between two evaluations, and so between two decisions to prune; the last epoch is always evaluated."""


AUGMENTATIONS = ("mosaic", "flip", "scale_jitter", "iou_crop", "colour")
"""Listed here so that a study file can be checked without importing torch; a test compares them with augment.py."""


Augment = Annotated[
    tuple[Annotated[str, known("augmentation", AUGMENTATIONS)], ...], Field(strict=False), each_once("augmentation")
]


class DetectionTraining(Frozen):
    """Keys of [training] for object detection."""

    augment: Choosable[Augment] = ()
    """Any of mosaic, flip, scale_jitter, iou_crop, colour; drawn separately for each image. mosaic comes first."""
