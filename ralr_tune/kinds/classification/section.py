"""The [task] table of kind "classification", and its own keys of [training]."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from ralr_tune.studyfile.imports import check_model
from ralr_tune.studyfile.sections import TaskSection
from ralr_tune.studyfile.values import (
    Choosable,
    Count,
    Frozen,
    Searchable,
    SearchableOptions,
    one_of,
    problem,
    within,
)


class _Images(Frozen):
    limit: Count | None = None
    """Train on only this many images (a stratified, seeded subset)."""
    classes: Annotated[tuple[str | int, ...], Field(strict=False, min_length=2)] | None = None
    """Use only these classes, given by name or index."""


class DigitsData(_Images):
    """scikit-learn's 1,797 digits, embedded: nothing to download."""

    source: Literal["digits"]


class TorchvisionData(_Images):
    """Any classification data set of torchvision, by class name."""

    source: Literal["torchvision"]
    dataset: str
    root: str = "data"
    download: bool = False
    size: Searchable[Count] | None = None


class FolderData(_Images):
    """A folder of class folders, or train/, test/ and optionally val/ with class folders."""

    source: Literal["folder"]
    path: str
    size: Searchable[Count] = 224


class ArraysData(_Images):
    """One .npz file with train_images, train_labels, test_images, test_labels[, classes]."""

    source: Literal["arrays"]
    path: str


ImageData: TypeAlias = Annotated[DigitsData | TorchvisionData | FolderData | ArraysData, Field(discriminator="source")]


def _model(value: str) -> str:
    try:
        return check_model(value)
    except ValueError as error:
        raise problem(str(error)) from None


class ClassificationSection(TaskSection):
    """[task] kind = "classification"."""

    data: ImageData
    model: Choosable[Annotated[str, AfterValidator(_model)]]
    model_options: SearchableOptions = {}
    pretrained: bool = False
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2


MIXINGS = ("mixup", "cutmix")
"""Augmentations that mix the images of a batch with each other. They are applied after all others, whatever their place
in the list. If both are chosen, each image gets one of them (see mixing.py)."""

AUGMENTATIONS = ("crop", "flip", "cutout", *MIXINGS)
"""Listed here so that a study file can be checked without importing torch; a test compares them with augment.py."""


def _augmentation(value: str) -> str:
    if value not in AUGMENTATIONS:
        raise problem(f"unknown augmentation; {one_of(AUGMENTATIONS, value)}")
    return value


def _distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := [each for each, count in Counter(value).items() if count > 1]:
        raise problem(f"{repeated[0]} is listed more than once; list each augmentation once")
    return value


Augment = Annotated[
    tuple[Annotated[str, AfterValidator(_augmentation)], ...], Field(strict=False), AfterValidator(_distinct)
]


class ClassificationTraining(Frozen):
    """Keys of [training] for images."""

    augment: Choosable[Augment] = ()
    label_smoothing: Searchable[Annotated[float, within("label_smoothing")]] = 0.0
