"""The image classification kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ralr_tune.kinds.classification import fine_tuning, regularisers
from ralr_tune.kinds.classification.metrics import METRICS
from ralr_tune.kinds.classification.options import ClassificationOptions
from ralr_tune.kinds.classification.section import (
    MIXINGS,
    ArraysData,
    ClassificationSection,
    ClassificationTraining,
    FolderData,
    ImageData,
    TorchvisionData,
)
from ralr_tune.logs import warnings_to_log
from ralr_tune.metric import Metric
from ralr_tune.models.names import is_unknown, unknown_network
from ralr_tune.records import Inventory, SourceFile
from ralr_tune.studyfile import Configuration, StudySpec
from ralr_tune.studyfile.contradictions import (
    Contradiction,
    Problem,
    corners,
    missing_file,
    path_of_key,
    training_paths,
)
from ralr_tune.studyfile.imports import Import, names_code
from ralr_tune.studyfile.kind import TaskSummary
from ralr_tune.studyfile.problems import dotted
from ralr_tune.training.kind import TorchKind

if TYPE_CHECKING:
    from torch import nn

    from ralr_tune.kinds.classification.inputs import Inputs
    from ralr_tune.kinds.classification.inventory import InventoryTaker
    from ralr_tune.kinds.classification.samples import Source
    from ralr_tune.kinds.classification.task import ClassificationTask
    from ralr_tune.studyfile.exported import Exported
    from ralr_tune.tasks.base import Task


class ClassificationKind(TorchKind):
    """Images of one size, with one class each."""

    name = "classification"
    metrics = METRICS
    section = ClassificationSection
    training = ClassificationTraining
    substitutes = {"data": {"source": "digits"}, "model": "small_cnn"}
    changes = {
        ("validation",): (False, "all earlier trials were evaluated on another validation split"),
        ("data",): (
            False,
            "earlier trials may have used other data (if you moved the data, keep a link at the old path)",
        ),
        ("data", "download"): (True, "whether missing data are downloaded"),
        ("data", "max_pixels"): (
            True,
            "how large an image may be; images that were accepted before are decoded the same",
        ),
        (): (False, "the trials trained another network"),
    }

    # ------------------------------------------------------------ training

    def options(self, values: Mapping[str, Any]) -> ClassificationOptions:
        return ClassificationOptions(**values)

    def load(
        self,
        section: ClassificationSection,
        *,
        metric: Metric,
        seed: int,
        device: str,
        cache: Path | None = None,
        like: Task | None = None,
    ) -> ClassificationTask:
        from ralr_tune.kinds.classification.sources import open_source
        from ralr_tune.kinds.classification.task import ClassificationTask
        from ralr_tune.models import registry

        def build(classes: int, channels: int, size: int) -> nn.Module:
            return _network(section, classes, channels, size)

        identity, origin = self.identity(section, seed=seed, metric=metric), (section.data, section.validation)
        inputs = _inputs(section)
        if isinstance(like, ClassificationTask) and like.origin == origin:
            return like.with_network(build, identity, inputs)
        with warnings_to_log():
            if section.pretrained:
                registry.fetch(str(section.model))  # in one line and before any trial, if they cannot be had
            source = open_source(section.data.model_dump())
            taker = None if cache is None else _inventory_taker(section, source, seed, cache)
            if taker:
                taker.take()  # finds bad test data before any training
            task = ClassificationTask(
                source,
                build=build,
                validation=section.validation,
                seed=seed,
                device=device,
                identity=identity,
                decoded=cache,
                origin=origin,
                metric=metric,
                inputs=inputs,
            )
            task.inventory = taker.take(contents=True) if taker else None
            return task

    def inventory_of(self, task: ClassificationTask) -> Inventory | None:
        return task.inventory

    # ------------------------------------------------------------ the study file

    def imports(self, section: ClassificationSection) -> tuple[Import, ...]:
        return tuple(Import("task.model", name) for name in fine_tuning.networks(section) if names_code(name))

    def in_effect(self, training: Mapping[str, Any]) -> Mapping[str, Any]:
        return regularisers.in_effect(training)

    def contradictions(self, spec: StudySpec) -> Iterator[Contradiction]:
        yield from regularisers.without_effect(spec)
        yield from fine_tuning.contradictions(spec)
        for arm in spec.arms:
            for corner in corners(spec.space(arm), ("batch_size", "augment")):
                configuration = spec.configuration(arm, corner)
                if mixing := _mixes_one_sample(configuration):
                    where = dotted(path_of_key(spec, arm, "batch_size"))
                    line = f"{where} = 1: {mixing} mixes pairs of images; needs a batch size of 2 or more (arm {arm})"
                    yield Contradiction(line, training_paths(arm, "batch_size", "augment"))
                    break

    def missing(self, section: ClassificationSection) -> Iterator[Contradiction]:
        for name in fine_tuning.networks(section):
            if is_unknown(name):
                yield Contradiction(unknown_network(name), (("task", "model"),))
        yield from fine_tuning.missing(section)
        if isinstance(section.data, FolderData | ArraysData):
            yield from missing_file(("task", "data", "path"), section.data.path)

    def problems(self, spec: StudySpec, *, imports: bool = True, sample: int) -> Iterator[Problem]:
        from ralr_tune.kinds.classification.problems import network_problems, read_data, study_problems

        assert isinstance(spec.task, ClassificationSection)
        yield from super().problems(spec, imports=imports, sample=sample)
        with warnings_to_log():
            found = read_data(spec, _open_here, sample)
            yield from network_problems(spec, found, imports=imports)
            yield from study_problems(spec, found)
            if found.labels_read or not self.downloads(spec.task):  # `run` downloads missing data
                yield from found.problems

    def notes(self, section: ClassificationSection) -> Iterator[str]:
        if section.pretrained and not self.downloads(section):
            yield from fine_tuning.head_notes(section, len(_open_here(section).classes))

    def complaints(self, configuration: Configuration) -> Iterator[str]:
        yield from regularisers.complaints(configuration.training)
        yield from fine_tuning.complaints(configuration)
        if mixing := _mixes_one_sample(configuration):
            yield f"training.batch_size = 1: {mixing} mixes pairs of images; needs a batch size of 2 or more"

    # ------------------------------------------------------------ reporting

    def examine(self, section: ClassificationSection) -> TaskSummary:
        import numpy as np

        source = _open_here(section)
        decoded = source.train.take(np.arange(1)).load().shape[1:]
        channels, height, width = decoded
        classes = len(source.classes)
        weights = 0
        if not self.imports(section):
            size = min(_sizes(section).shapes(decoded)[0][1:])
            untrained = section.model_copy(update={"pretrained": False, "weights": None})
            model = _network(untrained, classes, channels, size)
            weights = sum(tensor.nbytes for tensor in model.state_dict().values())
        return TaskSummary(
            f"{len(source.train):,} training images, {classes} classes, {channels}x{height}x{width}", weights
        )

    def inventory(
        self,
        section: ClassificationSection,
        *,
        seed: int,
        cache: Path | None = None,
        sample: int | None = None,
        contents: bool = False,
    ) -> Inventory:
        with warnings_to_log():
            taker = _inventory_taker(section, _open_here(section), seed, cache)
            return taker.take(sample=sample, contents=contents)

    def source_files(self, section: ClassificationSection) -> Iterator[SourceFile]:
        return fine_tuning.weight_files(section)

    def identified(self, section: BaseModel) -> dict[str, Any]:
        """Earlier releases normalised by the training data, whatever the weights."""
        assert isinstance(section, ClassificationSection)
        normalised = {"normalisation": "of the weights"} if fine_tuning.starts_from_weights(section) else {}
        return {**super().identified(section), **normalised}

    def downloads(self, section: ClassificationSection) -> bool:
        if not isinstance(section.data, TorchvisionData) or not section.data.download:
            return False
        from ralr_tune.kinds.classification.torchvision_sets import can_fetch

        return can_fetch(section.data.dataset)

    def caches(self, out: Path) -> Iterator[tuple[Path, str]]:
        # a process that maps such a file can still read it after its removal
        for path in sorted((out / "data").glob("images-*.npy")):
            yield path, "decoded images, decoded again when needed"

    def script(self, exported: Exported) -> str:
        from ralr_tune.kinds.classification.script import script

        return script(exported)


def _open_here(section: ClassificationSection) -> Source:
    """The data set, without downloading it."""
    from ralr_tune.kinds.classification.sources import open_source

    data = section.data.model_dump()
    return open_source({key: False if key == "download" else value for key, value in data.items()})


def _inventory_taker(section: ClassificationSection, source: Source, seed: int, cache: Path | None) -> InventoryTaker:
    from ralr_tune.kinds.classification.inventory import InventoryTaker

    return InventoryTaker(source, name=_place(section.data), validation=section.validation, seed=seed, cache=cache)


def _place(data: ImageData) -> str:
    """Kind and place of the data in a few words."""
    if isinstance(data, FolderData | ArraysData):
        return f"{data.source} {data.path}"
    return f"torchvision's {data.dataset} in {data.root}" if isinstance(data, TorchvisionData) else data.source


def _network(section: ClassificationSection, classes: int, channels: int, size: int) -> nn.Module:
    from ralr_tune.models import registry

    assert isinstance(section.model, str)  # resolved: one value
    return registry.build(
        section.model,
        classes=classes,
        channels=channels,
        size=size,
        options=section.model_options,
        pretrained=section.pretrained,
        weights=section.weights,
    )


def _inputs(section: ClassificationSection) -> Inputs:
    """Raises UsageError for an unknown network that would start from pretrained weights."""
    from ralr_tune.models import registry

    assert isinstance(section.model, str)
    given = registry.normalisation(section.model) if fine_tuning.starts_from_weights(section) else None
    return replace(_sizes(section), normalisation=given)


def _sizes(section: ClassificationSection) -> Inputs:
    from ralr_tune.kinds.classification.inputs import Inputs

    train, test = (None if size is None else int(str(size)) for size in (section.train_size, section.test_size))
    return Inputs(train, test)


def _mixes_one_sample(configuration: Configuration) -> str | None:
    """The augmentation that needs pairs although every batch has one sample; None if there is none."""
    options = configuration.options
    assert isinstance(options, ClassificationOptions)
    asked = [name for name in options.augment if name in MIXINGS]
    return asked[0] if asked and configuration.training.batch_size == 1 else None


KIND = ClassificationKind()
