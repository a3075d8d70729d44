"""Annotated images in an exported script: the same splits and measurements as in the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import nn

from ralr_tune.kinds.detection.annotated import Picture, Source
from ralr_tune.kinds.detection.feeding import detect
from ralr_tune.kinds.detection.loading import PictureLoader
from ralr_tune.kinds.detection.scores import THRESHOLDS, precisions
from ralr_tune.kinds.detection.splits import hold_out


@dataclass(frozen=True)
class AnnotatedData:
    """The training images include the validation images."""

    classes: tuple[str, ...]
    train: Sequence[Picture]
    test: Sequence[Picture]


def load_annotations(source: Source, *, validation: float, study_seed: int) -> AnnotatedData:
    """All annotations of the source. `validation` and `study_seed` determine the study's validation split, and with it
    the order of the images."""
    if source.validation is None:
        held_out, train = hold_out(source.train, validation, study_seed)
    else:
        held_out, train = source.validation, source.train
    return AnnotatedData(source.classes, [*train.pictures, *held_out.pictures], source.test().pictures)


def average_precision(
    model: nn.Module,
    pictures: Sequence[Picture],
    loader: PictureLoader,
    *,
    device: str,
    autocast: Callable[[], AbstractContextManager[object]],
) -> dict[str, float]:
    """The study's metrics of the network on some images, by name."""
    found = detect(model, pictures, loader, batch_size=4, device=device, autocast=autocast)
    measured = precisions(found, [each.objects for each in pictures])
    return {name: measured.value(name) for name in THRESHOLDS}
