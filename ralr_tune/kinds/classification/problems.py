"""What is wrong with the data and the networks of a study: all of it, before anything is trained (`Kind.problems`).

A problem of the data does not hide those of the networks: with unknown images, a network is only built.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from ralr_tune.errors import DataError, UsageError
from ralr_tune.images.files import listed
from ralr_tune.kinds.classification import fine_tuning
from ralr_tune.kinds.classification.inputs import Inputs
from ralr_tune.kinds.classification.regularisers import misfits
from ralr_tune.kinds.classification.samples import Samples, Source, hold_out
from ralr_tune.kinds.classification.scores import check_classes
from ralr_tune.kinds.classification.section import ArraysData, ClassificationSection, FolderData, TorchvisionData
from ralr_tune.kinds.classification.stratify import Rows
from ralr_tune.machine.cores import available_cores
from ralr_tune.models import contract, registry
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.contradictions import Problem, corners, missing_file, path_of_key, training_paths
from ralr_tune.studyfile.imports import TIMM, TORCHVISION, Import, forget_module, names_code
from ralr_tune.studyfile.problems import KeyPath, dotted, one_line
from ralr_tune.studyfile.tasks import first_task, typical_tasks
from ralr_tune.studyfile.values import Choice, Range

Read = TypeVar("Read")

DATA: KeyPath = ("task", "data")
NETWORK: tuple[KeyPath, ...] = tuple(
    ("task", key) for key in ("model", "model_options", "pretrained", "weights", "train_size", "test_size")
)


@dataclass
class Found:
    """What could be read of the data, and their problems."""

    problems: list[Problem] = field(default_factory=list)
    classes: int | None = None
    shape: tuple[int, ...] | None = None
    """(C, H, W) of the first training image."""
    with_images: int | None = None
    """Classes with training images."""
    train: int | None = None
    """Training images without those that are held out."""
    labels_read: bool = False
    """Whether the data set could be opened."""

    def attempt(self, read: Callable[[], Read], *more: KeyPath, absent: bool = False) -> Read | None:
        """What `read` returns; if it raises DataError, None, and one problem more."""
        try:
            return read()
        except DataError as error:
            self.problems.append(Problem(str(error), (DATA, *more), of_data=True, absent=absent))
            return None


# ---------------------------------------------------------------- data


def read_data(spec: StudySpec, open_here: Callable[[ClassificationSection], Source], sample: int) -> Found:
    """Reads the labels and so many (`sample`) images of each split."""
    found = Found()
    section = first_task(spec)
    assert isinstance(section, ClassificationSection)
    source = found.attempt(partial(_open, section, open_here), absent=_may_be_elsewhere(section))
    if source is None:
        found.classes = len(section.data.classes) if section.data.classes else None
        return found
    found.labels_read, found.classes, train = True, len(source.classes), source.train
    found.with_images = len(np.unique(train.labels))
    splits: dict[str, Samples] = {}
    if source.validation is not None:
        splits["validation"] = source.validation
        found.train = len(train)
    elif held_out := found.attempt(
        partial(hold_out, train.labels, section.validation, spec.study.seed), ("task", "validation"), ("study", "seed")
    ):
        found.train = len(held_out[1])
    test = found.attempt(source.test)
    if test is not None:
        splits["test"] = test
    found.shape = found.attempt(partial(_readable, train, "train", sample))
    for name, samples in splits.items():
        found.attempt(partial(_readable, samples, name, sample, found.shape))
    return found


def _open(section: ClassificationSection, open_here: Callable[[ClassificationSection], Source]) -> Source:
    if isinstance(section.data, FolderData | ArraysData):
        for gone in missing_file((*DATA, "path"), section.data.path):
            raise DataError(gone.line)
    return open_here(section)


def _may_be_elsewhere(section: ClassificationSection) -> bool:
    """Whether data that cannot be opened may simply not be on this machine."""
    if not isinstance(section.data, TorchvisionData):
        return False
    import torchvision.datasets

    return hasattr(torchvision.datasets, section.data.dataset.partition(":")[0])


def _readable(samples: Samples, split: str, sample: int, expected: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """(C, H, W) of the images. Raises DataError, naming all of the sample that cannot be read or differ."""
    if not len(samples):
        raise DataError(f"data: the {split} split has no image of the classes in data.classes")
    rows = samples.rows[np.linspace(0, len(samples) - 1, min(sample, len(samples))).astype(np.int64)]
    if not samples.in_threads:
        return _shape(samples, rows, split, expected)
    with ThreadPoolExecutor(available_cores()) as pool:
        found = list(pool.map(lambda row: _shape_or_error(samples, row, split, expected), rows))
    wrong = [(row, each) for row, each in zip(rows, found, strict=True) if isinstance(each, DataError)]
    if wrong:
        (_, first), *more = wrong
        names = listed([_name(samples, int(row)) for row, _ in more])
        raise DataError(f"{first} (and {len(more)} more: {names})" if more else str(first))
    assert not isinstance(found[0], DataError)
    return found[0]


def _shape_or_error(
    samples: Samples, row: np.int64, split: str, expected: tuple[int, ...] | None
) -> tuple[int, ...] | DataError:
    try:
        return _shape(samples, np.array([row]), split, expected)
    except DataError as error:
        return error


def _shape(samples: Samples, rows: Rows, split: str, expected: tuple[int, ...] | None) -> tuple[int, ...]:
    shape = samples.read(rows).shape[1:]
    if expected not in (None, shape):
        raise DataError(f"{split} images have shape {shape}, training images {expected} (C, H, W)")
    return shape


def _name(samples: Samples, row: int) -> str:
    return one_line(samples.listing.names(row)) if samples.listing else str(row)


# ---------------------------------------------------------------- the study and its data


def study_problems(spec: StudySpec, found: Found) -> Iterator[Problem]:
    """What in the study does not fit the number of classes or images."""
    if found.classes is not None:
        try:
            check_classes(spec.metric.name, found.classes)
        except UsageError as error:
            yield Problem(str(error), (("study", "metric"), DATA))
    yield from misfits(spec, channels=found.shape[0] if found.shape else None, classes=found.with_images)
    for arm in spec.arms if found.train is not None else ():
        given = spec.training(arm)["batch_size"]
        if _largest(given) > (found.train or 0):
            where = f"{dotted(path_of_key(spec, arm, 'batch_size'))} = {given}"
            line = f"{where}: must be at most {found.train}, the number of training images (validation aside)"
            yield Problem(line, (DATA, ("task", "validation"), *training_paths(arm, "batch_size")))


def _largest(value: int | Range[int] | Choice[int]) -> int:
    if isinstance(value, Choice):
        return max(value.choices)
    return value.high if isinstance(value, Range) else value


# ---------------------------------------------------------------- networks


def network_problems(spec: StudySpec, found: Found, *, imports: bool) -> Iterator[Problem]:
    """Tries every network of the study; those of the user's own code only with `imports`."""
    first = first_task(spec)
    batch = min(2, _smallest_batch(spec))  # batch normalisation may refuse a single image
    paths = training_paths_of_all(spec)
    head = fine_tuning.separate_head(spec)
    for section in typical_tasks(spec, "model"):
        assert isinstance(section, ClassificationSection)
        assert isinstance(first, ClassificationSection)
        name = str(section.model)
        if names_code(name) and not imports:
            continue
        decoded = _shape_for(section, first, found.shape)
        try:
            shapes = (None,) if decoded is None else _inputs(section).shapes(decoded)
        except UsageError as error:
            yield Problem(str(error), (DATA, ("task", "train_size"), ("task", "test_size")))
            continue
        images = contract.Images(found.classes, *shapes)
        before = frozenset(sys.modules)
        wrong = contract.misfit(partial(build, section), name, images, batch=batch, head=head)
        if wrong:
            if names_code(name):
                forget_module(name, before)
            absent = names_code(name) and Import("task.model", name).folder() is None
            yield Problem(wrong.reason, (*NETWORK, *((DATA, *paths) if wrong.of_images else ())), absent=absent)


def build(section: ClassificationSection, classes: int, channels: int, size: int) -> nn.Module:
    """The network that `section` describes, with pretrained weights if they need no download."""
    name = str(section.model)
    shape: dict[str, Any] = {"classes": classes, "channels": channels, "size": size}
    if section.pretrained and section.weights is not None:  # reported as a contradiction
        return registry.build(name, **shape, options=section.model_options)
    pretrained = section.pretrained
    if pretrained and name.startswith((TORCHVISION, TIMM)):
        registry.build(name, **shape, options=section.model_options)  # an unknown name has no weights, either
        file = registry.weights_file(name)
        pretrained = file is not None and file.exists()
    weights = section.weights if section.weights is not None and Path(section.weights).is_file() else None
    return registry.build(name, **shape, options=section.model_options, pretrained=pretrained, weights=weights)


def training_paths_of_all(spec: StudySpec) -> tuple[KeyPath, ...]:
    return tuple(path for arm in spec.arms for path in training_paths(arm, "batch_size"))


def _smallest_batch(spec: StudySpec) -> int:
    return min(
        spec.configuration(arm, corner).training.batch_size
        for arm in spec.arms
        for corner in corners(spec.space(arm), ("batch_size",))
    )


def _inputs(section: ClassificationSection) -> Inputs:
    train, test = (None if size is None else int(str(size)) for size in (section.train_size, section.test_size))
    return Inputs(train, test)


def _shape_for(
    section: ClassificationSection, first: ClassificationSection, shape: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """(C, H, W) of the images of `section`: `shape` is that of `first`, which may have another data.size."""
    size = section.data.size if isinstance(section.data, FolderData | TorchvisionData) else None
    if shape is None:
        return (3, int(str(size)), int(str(size))) if isinstance(section.data, FolderData) else None
    return shape if section.data == first.data or size is None else (shape[0], int(str(size)), int(str(size)))
