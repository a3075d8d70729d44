"""What is wrong with the data and the detectors of a study: all of it, before anything is trained (`Kind.problems`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from ralr_tune.errors import DataError, UsageError
from ralr_tune.kinds.detection.annotated import Part, Source
from ralr_tune.kinds.detection.inventory import check_decoded
from ralr_tune.kinds.detection.section import DetectionSection
from ralr_tune.kinds.detection.sources import make_loader, network, open_source
from ralr_tune.kinds.detection.splits import hold_out
from ralr_tune.models.detectors import pretrained_file
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.contradictions import Problem, missing_file, path_of_key, training_paths
from ralr_tune.studyfile.problems import KeyPath, dotted
from ralr_tune.studyfile.tasks import first_task, typical_tasks
from ralr_tune.studyfile.values import Choice, Range

DATA: KeyPath = ("task", "data")
KEYS = ("model", "backbone", "fpn_channels", "head_convs", "min_size", "train_sizes", "pretrained")
NETWORK: tuple[KeyPath, ...] = tuple(("task", key) for key in KEYS)
TRIED_SIDE = 128
"""Pixels of the image that every detector is tried on: its own size might take minutes on a CPU."""


@dataclass
class Found:
    """What could be read of the data, and their problems."""

    problems: list[Problem] = field(default_factory=list)
    classes: int | None = None
    train: int | None = None
    """Training images without those that are held out."""

    def add(self, error: DataError, *more: KeyPath) -> None:
        self.problems.append(Problem(str(error), (DATA, *more), of_data=True))


def read_data(spec: StudySpec, sample: int) -> Found:
    """Reads all annotations, and so many (`sample`) images of each split."""
    found, section = Found(), first_task(spec)
    assert isinstance(section, DetectionSection)
    try:
        for gone in missing_file((*DATA, "path"), section.data.path):
            raise DataError(gone.line)
        source = open_source(section.data)
    except DataError as error:
        found.add(error)
        return found
    found.classes, found.train = len(source.classes), len(source.train)
    parts = {"train": source.train}
    if source.validation is not None:
        parts["validation"] = source.validation
    else:
        _hold_out(found, source, section, spec.study.seed)
    try:
        parts["test"] = source.test()
    except DataError as error:
        found.add(error)
    loader = make_loader(section)
    for split, part in parts.items():
        try:
            if not any(len(each.objects) for each in part.pictures):
                raise DataError(f"data: the {split} split has no object of the chosen classes")
            check_decoded([part.pictures[place] for place in _spread(part, sample)], loader)
        except DataError as error:
            found.add(error)
    return found


def _hold_out(found: Found, source: Source, section: DetectionSection, seed: int) -> None:
    try:
        found.train = len(hold_out(source.train, section.validation, seed)[1])
    except DataError as error:
        found.add(error, ("task", "validation"), ("study", "seed"))


def _spread(part: Part, sample: int) -> list[int]:
    places: list[int] = np.linspace(0, len(part) - 1, min(sample, len(part))).astype(int).tolist()
    return places


def study_problems(spec: StudySpec, found: Found) -> Iterator[Problem]:
    """Batches that are larger than the training data."""
    for arm in spec.arms if found.train is not None else ():
        given = spec.training(arm)["batch_size"]
        largest = max(given.choices) if isinstance(given, Choice) else given.high if isinstance(given, Range) else given
        if largest > (found.train or 0):
            where = f"{dotted(path_of_key(spec, arm, 'batch_size'))} = {given}"
            line = f"{where}: must be at most {found.train}, the number of training images (validation aside)"
            yield Problem(line, (DATA, ("task", "validation"), *training_paths(arm, "batch_size")))


def network_problems(spec: StudySpec, found: Found) -> Iterator[Problem]:
    """Builds every detector of the study and trains it for one step on one small image."""
    for section in typical_tasks(spec, "model"):
        assert isinstance(section, DetectionSection)
        here = section.model_copy(update={"pretrained": section.pretrained and _is_here(section)})
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                _try(here, found.classes or 1)
        except UsageError as error:
            yield Problem(str(error), NETWORK)


def _is_here(section: DetectionSection) -> bool:
    """Whether pretrained weights need no download."""
    return pretrained_file(str(section.model), str(section.backbone) if section.backbone else None).exists()


def _try(section: DetectionSection, classes: int) -> None:
    model = network(section, classes)
    images = [torch.rand(3, TRIED_SIDE, TRIED_SIDE) for _ in range(2)]
    box = torch.tensor([[8.0, 8.0, 72.0, 72.0]])
    targets = [{"boxes": box, "labels": torch.ones(1, dtype=torch.int64)} for _ in images]
    transform = model.transform
    sizes = transform.min_size, transform.fixed_size  # type: ignore[union-attr]
    if sizes[1] is None:
        transform.min_size = (TRIED_SIDE,)  # type: ignore[union-attr]
    try:
        sum(model(images, targets).values()).backward()
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"task.model = {section.model!r}: cannot be trained: {reason}") from error
