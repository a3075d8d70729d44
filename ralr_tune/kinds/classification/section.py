"""The [task] table of kind "classification", and its keys of [training]."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from ralr_tune.kinds.classification.options import ClassificationOptions
from ralr_tune.studyfile.imports import check_model
from ralr_tune.studyfile.sections import TaskSection
from ralr_tune.studyfile.values import (
    Choosable,
    Count,
    Extended,
    Searchable,
    SearchableOptions,
    each_once,
    known,
    problem,
    within,
)


class _Images(Extended):
    limit: Count | None = None
    """Train on only this many images (a stratified, seeded subset)."""
    classes: Annotated[tuple[str | int, ...], Field(strict=False, min_length=2)] | None = None
    """Use only these classes, given by name or index."""


class DigitsData(_Images):
    """scikit-learn's 1,797 digits, embedded: nothing to download."""

    source: Literal["digits"]
    """The embedded digits."""


class TorchvisionData(_Images):
    """Any classification data set of torchvision, by class name."""

    added = frozenset({"max_pixels"})
    source: Literal["torchvision"]
    """A data set of torchvision."""
    dataset: str
    """Its class name in torchvision.datasets."""
    root: str = "data"
    """The folder that holds the data set."""
    download: bool = False
    """Download the data set if it is missing."""
    size: Searchable[Count] | None = None
    """Resize and crop every image to a square of so many pixels."""
    max_pixels: Count | None = None
    """Maximum of one image; None: 89 million, Pillow's limit."""


class FolderData(_Images):
    """A folder of class folders, or train/, test/ and optionally val/ with class folders."""

    added = frozenset({"max_pixels"})
    source: Literal["folder"]
    """A folder of images."""
    path: str
    """The folder, relative to where the command runs."""
    size: Searchable[Count] = 224
    """Resize and crop every image to a square of so many pixels."""
    max_pixels: Count | None = None
    """Maximum of one image as decoded (with `size`, a JPEG may be decoded at a fraction of its size); None: 89 million,
    Pillow's limit."""


class ArraysData(_Images):
    """One .npz file with train_images, train_labels, test_images, test_labels[, val_images, val_labels, classes]."""

    added = frozenset({"layout"})
    source: Literal["arrays"]
    """Arrays in one file."""
    path: str
    """The .npz file, relative to where the command runs."""
    layout: Literal["NHWC", "NCHW"] | None = None
    """Order of the axes of images of several channels; None: NHWC, and what is clearly NCHW is refused."""


ImageData: TypeAlias = Annotated[DigitsData | TorchvisionData | FolderData | ArraysData, Field(discriminator="source")]


def _model(value: str) -> str:
    try:
        return check_model(value)
    except ValueError as error:
        raise problem(str(error)) from None


class ClassificationSection(Extended, TaskSection):
    """[task] kind = "classification"."""

    added = frozenset({"train_size", "test_size", "weights"})
    data: ImageData
    """Where the images come from: one of the tables below."""
    model: Choosable[Annotated[str, AfterValidator(_model)]]
    """small_cnn, resnet20 ... resnet110, `torchvision:NAME`, or `package.module:callable`."""
    model_options: SearchableOptions = {}
    """Arguments of the network; values may be searched."""
    pretrained: bool = False
    """Start from the weights that torchvision or timm has for the network; the images are normalised as they were for
    these weights. A head of other classes is initialised."""
    weights: str | None = None
    """Start from the weights in this file (.safetensors, or of torch.save); all but the head must fit."""
    train_size: Searchable[Count] | None = None
    """Pixels of a side of the square that the network sees in training, cut from the image (see `resized_crop`); None:
    the whole image."""
    test_size: Searchable[Count] | None = None
    """The same in evaluation, cut from the centre."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the training data that is held out if there is no validation split."""


MIXINGS = ("mixup", "cutmix")
"""Augmentations that mix the images of a batch with each other. They are applied after all others, wherever they are
in the list. If both are chosen, each image gets one of them (see mixing.py)."""

AUGMENTATIONS = (
    "resized_crop",
    "crop",
    "flip",
    "cutout",
    "random_erasing",
    "rand_augment",
    "trivial_augment",
    *MIXINGS,
)
"""Listed here so that a study file can be checked without importing torch; a test compares them with augment.py."""

COLOUR_OPERATIONS = ("rand_augment", "trivial_augment")
"""Augmentations whose operations are defined for one and three channels only."""


Augment = Annotated[
    tuple[Annotated[str, known("augmentation", AUGMENTATIONS)], ...], Field(strict=False), each_once("augmentation")
]


_DEFAULT = ClassificationOptions()


class ClassificationTraining(Extended):
    """Keys of [training] for images. A key whose name begins with that of an augmentation is a parameter of it."""

    added = frozenset(vars(_DEFAULT)) - {"augment", "label_smoothing"}
    augment: Choosable[Augment] = ()
    """Any of resized_crop, crop, flip, cutout, random_erasing, rand_augment, trivial_augment, mixup, cutmix; drawn for
    each image and applied in the order of the list, mixup and cutmix last."""
    label_smoothing: Searchable[Annotated[float, within("label_smoothing")]] = 0.0
    head_factor: Searchable[Annotated[float, within("head_factor")]] = _DEFAULT.head_factor
    freeze_trunk: Searchable[Annotated[int, within("freeze_trunk")]] = _DEFAULT.freeze_trunk
    cutout_size: Searchable[Annotated[float, within("cutout_size")]] = _DEFAULT.cutout_size
    mixup_alpha: Searchable[Annotated[float, within("mixup_alpha")]] = _DEFAULT.mixup_alpha
    cutmix_alpha: Searchable[Annotated[float, within("cutmix_alpha")]] = _DEFAULT.cutmix_alpha
    random_erasing_probability: Searchable[Annotated[float, within("random_erasing_probability")]] = (
        _DEFAULT.random_erasing_probability
    )
    random_erasing_area: Searchable[Annotated[float, within("random_erasing_area")]] = _DEFAULT.random_erasing_area
    random_erasing_aspect: Searchable[Annotated[float, within("random_erasing_aspect")]] = (
        _DEFAULT.random_erasing_aspect
    )
    random_erasing_value: Choosable[Literal["noise", "mean"]] = _DEFAULT.random_erasing_value
    """What random_erasing writes: a random value for each pixel and channel, or the mean colour of the training
    images."""
    rand_augment_operations: Searchable[Annotated[int, within("rand_augment_operations")]] = (
        _DEFAULT.rand_augment_operations
    )
    rand_augment_magnitude: Searchable[Annotated[int, within("rand_augment_magnitude")]] = (
        _DEFAULT.rand_augment_magnitude
    )


def augmentation_of(key: str) -> str | None:
    """The augmentation that this key of [training] is a parameter of; None for any other key."""
    return next((name for name in AUGMENTATIONS if key.startswith(f"{name}_")), None)
