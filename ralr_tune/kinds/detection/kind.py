"""The object detection kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralr_tune.invocation import install
from ralr_tune.kinds.detection.metrics import METRICS
from ralr_tune.kinds.detection.options import DetectionOptions
from ralr_tune.kinds.detection.section import DetectionSection, DetectionTraining
from ralr_tune.logs import warnings_to_log
from ralr_tune.machine.files import sha256_of
from ralr_tune.metric import Metric
from ralr_tune.models.detector_names import FAMILIES
from ralr_tune.records import Inventory, SourceFile
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.contradictions import Contradiction, Problem, missing_file
from ralr_tune.studyfile.kind import TaskSummary
from ralr_tune.studyfile.values import Choice
from ralr_tune.training.kind import TorchKind

if TYPE_CHECKING:
    from ralr_tune.kinds.detection.scores import Detections
    from ralr_tune.kinds.detection.task import DetectionTask
    from ralr_tune.studyfile.exported import Exported
    from ralr_tune.tasks.base import Split, Task
    from ralr_tune.tasks.examples import Examples
    from ralr_tune.training.loop import TorchTrial

NEEDED = ("torchmetrics", "faster_coco_eval")
"""Packages of the extra `detection`."""


class DetectionKind(TorchKind):
    """Boxes with classes in images of any size."""

    name = "detection"
    metrics = METRICS
    section = DetectionSection
    training = DetectionTraining
    substitutes = {"data": {"source": "voc", "path": "."}}
    packages = ("torch", "torchvision", "torchmetrics", "faster-coco-eval")
    changes = {
        ("validation",): (False, "all earlier trials were evaluated on another validation split"),
        ("data",): (
            False,
            "earlier trials may have used other data (if you moved the data, keep a link at the old path)",
        ),
        ("data", "max_pixels"): (
            True,
            "how large an image may be; images that were accepted before are decoded the same",
        ),
        ("evaluate_every",): (False, "the curves of earlier trials have values at other epochs"),
        (): (False, "the trials trained another network"),
    }

    def epoch_metrics(self, section: DetectionSection, metric: Metric) -> Mapping[str, Metric]:
        return {name: each for name, each in METRICS.items() if name != metric.name}

    # ------------------------------------------------------------ training

    def options(self, values: Mapping[str, Any]) -> DetectionOptions:
        return DetectionOptions(**values)

    def load(
        self,
        section: DetectionSection,
        *,
        metric: Metric,
        seed: int,
        device: str,
        cache: Path | None = None,
        like: Task | None = None,
    ) -> DetectionTask:
        from ralr_tune.kinds.detection.inventory import take_inventory
        from ralr_tune.kinds.detection.sources import make_loader, network, open_source
        from ralr_tune.kinds.detection.task import DetectionTask

        build, loader = partial(network, section), make_loader(section)
        identity, origin = self.identity(section, seed=seed, metric=metric), (section.data, section.validation)
        if isinstance(like, DetectionTask) and like.origin == origin:
            return like.with_network(build, identity, loader, section.evaluate_every)
        with warnings_to_log():
            source = open_source(section.data)
            task = DetectionTask(
                source,
                build=build,
                loader=loader,
                validation=section.validation,
                seed=seed,
                device=device,
                identity=identity,
                evaluate_every=section.evaluate_every,
                origin=origin,
                metric=metric,
            )
            if cache is not None:  # finds bad test data before any training
                settings: dict[str, Any] = {"validation": section.validation, "seed": seed, "cache": cache}
                task.inventory = take_inventory(source, loader, name=_place(section), contents=True, **settings)
            return task

    def inventory_of(self, task: DetectionTask) -> Inventory | None:
        return task.inventory

    # ------------------------------------------------------------ the study file

    def contradictions(self, spec: StudySpec) -> Iterator[Contradiction]:
        section = spec.task
        assert isinstance(section, DetectionSection)
        for model in section.model.choices if isinstance(section.model, Choice) else (section.model,):
            for key in ("backbone", "fpn_channels", "head_convs"):
                value = getattr(section, key)
                own = model not in FAMILIES
                if value is not None and (own or (key != "backbone" and getattr(FAMILIES[model], key) is None)):
                    line = f"task.{key} = {value}: {model} {'has its own' if own else 'has none'}; leave it out"
                    yield Contradiction(line, (("task", "model"), ("task", key)))

    def missing(self, section: DetectionSection) -> Iterator[Contradiction]:
        if absent := [name.replace("_", "-") for name in NEEDED if find_spec(name) is None]:
            line = f"task.kind = 'detection': needs {' and '.join(absent)}; install them with: "
            yield Contradiction(line + install("detection"), (("task", "kind"),))
        yield from missing_file(("task", "data", "path"), section.data.path)

    def problems(self, spec: StudySpec, *, imports: bool = True, sample: int) -> Iterator[Problem]:
        from ralr_tune.kinds.detection.problems import network_problems, read_data, study_problems

        yield from super().problems(spec, imports=imports, sample=sample)
        with warnings_to_log():
            found = read_data(spec, sample)
            yield from network_problems(spec, found)
            yield from study_problems(spec, found)
            yield from found.problems

    # ------------------------------------------------------------ reporting

    def examine(self, section: DetectionSection) -> TaskSummary:
        from ralr_tune.kinds.detection.sources import network, open_source

        source = open_source(section.data)
        model = network(section.model_copy(update={"pretrained": False}), len(source.classes))
        weights = sum(tensor.nbytes for tensor in model.state_dict().values())
        boxes = sum(len(picture.objects) for picture in source.train.pictures)
        found = f"{len(source.train):,} training images, {boxes:,} boxes, {len(source.classes)} classes"
        return TaskSummary(found, weights)

    def examples(self, task: DetectionTask, trial: TorchTrial) -> Mapping[str, Any]:
        from ralr_tune.kinds.detection.shown import gathered

        def detect(split: Split, batch_size: int) -> Sequence[Detections]:
            return trial.state.with_judged(partial(task.detect, split=split, batch_size=batch_size))

        found = trial.in_batches("validation", detect)
        return gathered(task.pictures("validation"), found, task.classes, task.metric.name)

    def shown_examples(self, section: DetectionSection, by_arm: Mapping[str, Mapping[str, Any]]) -> Examples:
        from ralr_tune.kinds.detection.shown import shown_examples

        return shown_examples(by_arm)

    def inventory(
        self,
        section: DetectionSection,
        *,
        seed: int,
        cache: Path | None = None,
        sample: int | None = None,
        contents: bool = False,
    ) -> Inventory:
        from ralr_tune.kinds.detection.inventory import take_inventory
        from ralr_tune.kinds.detection.sources import make_loader, open_source

        with warnings_to_log():
            settings: dict[str, Any] = {"validation": section.validation, "seed": seed, "cache": cache}
            source, loader = open_source(section.data), make_loader(section)
            return take_inventory(source, loader, name=_place(section), sample=sample, contents=contents, **settings)

    def source_files(self, section: DetectionSection) -> Iterator[SourceFile]:
        if not section.pretrained:
            return
        from ralr_tune.models.detectors import pretrained_file

        backbones = section.backbone.choices if isinstance(section.backbone, Choice) else [section.backbone]
        models = section.model.choices if isinstance(section.model, Choice) else [section.model]
        for file in dict.fromkeys(pretrained_file(model, backbone) for model in models for backbone in backbones):
            digest = sha256_of(file)  # None before the download
            yield SourceFile("task.pretrained", f"weights {file.name}", (digest,) if digest else ())

    def script(self, exported: Exported) -> str:
        from ralr_tune.kinds.detection.script import script

        return script(exported)


def _place(section: DetectionSection) -> str:
    """Kind and place of the data in a few words."""
    return f"{section.data.source} {section.data.path}"


KIND = DetectionKind()
