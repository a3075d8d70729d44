"""The task: batches by aspect, targets, detections in stored pixels, and training that resumes bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from ralr_tune.errors import DataError, TrialError, UsageError
from ralr_tune.kinds.detection.batches import DetectionBatch, aspect_batches, batch_count
from ralr_tune.kinds.detection.loading import PictureLoader
from ralr_tune.kinds.detection.options import DetectionOptions
from ralr_tune.kinds.detection.task import DetectionTask
from ralr_tune.kinds.detection.voc import read_voc
from ralr_tune.models.detectors import build_detector
from ralr_tune.studyfile import parse_study
from ralr_tune.training.loop import TorchTrial
from tests.kinds.detection.conftest import write_image

ALL = DetectionOptions(augment=("mosaic", "flip", "scale_jitter", "iou_crop", "colour"))


def tiny(classes: int, **changes: Any) -> nn.Module:
    return build_detector("small_fcos", classes=classes, fpn_channels=32, head_convs=1, min_size=48, **changes)


@pytest.fixture
def task(write_voc: Callable[..., Path]) -> DetectionTask:
    return make(write_voc())


def make(root: Path, **changes: Any) -> DetectionTask:
    given: dict[str, Any] = {"build": tiny, "validation": 0.2, "seed": 0, "device": "cpu", "identity": "x"}
    return DetectionTask(read_voc(str(root)), loader=PictureLoader(48, 80, None), **given | changes)


STUDY = """
[study]
name = "boxes"
baseline = "monotone"
[task]
kind = "detection"
data = {{ source = "voc", path = "{path}" }}
fpn_channels = 32
head_convs = 1
min_size = 48
evaluate_every = {every}
[training]
epochs = {epochs}
batch_size = 4
lr = 0.01
momentum = 0.9
clip_norm = 5.0
augment = ["mosaic", "flip", "scale_jitter", "iou_crop", "colour"]
[schedule]
name = "cosine"
warmup = 0.3
granularity = "step"
[arms.monotone]
[search]
trials = 1
"""


def configuration(path: Path, *, epochs: int = 3, every: int = 1) -> Any:
    return parse_study(STUDY.format(path=path, epochs=epochs, every=every)).configuration("monotone", {})


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize("batch_size", [1, 3, 4, 50])
def test_every_image_once_in_batches_of_similar_aspect(batch_size: int) -> None:
    ratios = [0.5, 2.0] * 10 + [1.0] * 5
    for epoch in range(3):
        batches = aspect_batches(ratios, batch_size, seed=1, epoch=epoch)
        assert sorted(np.concatenate(batches).tolist()) == list(range(25))
        assert len(batches) == batch_count(ratios, batch_size)
        assert max(map(len, batches)) <= batch_size
        mixed = [each for each in batches if len({ratios[place] for place in each}) > 1]
        assert len(mixed) <= 3
    assert [each.tolist() for each in batches] != [
        each.tolist() for each in aspect_batches(ratios, batch_size, seed=2, epoch=2)
    ]


def test_a_batch_is_a_pure_function_of_seed_and_epoch(task: DetectionTask) -> None:
    def draw(seed: int, epoch: int) -> list[DetectionBatch]:
        return list(task.batches("train", seed=seed, epoch=epoch, batch_size=3, options=ALL))

    one, same, other = draw(1, 2), draw(1, 2), draw(1, 3)
    assert len(one) == task.steps("train", 3) == 3
    assert all(
        torch.equal(a, b)
        for x, y in zip(one, same, strict=True)
        for a, b in zip(x._tensors(), y._tensors(), strict=True)
    )
    assert any(
        x.signature != y.signature or not torch.equal(x.images[0], y.images[0]) for x, y in zip(one, other, strict=True)
    )


def test_threads_prepare_the_same_batches(task: DetectionTask, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = list(task.batches("train", seed=1, epoch=0, batch_size=3, options=ALL))
    monkeypatch.setattr(DetectionTask, "_ahead", 2)
    threaded = list(task.batches("train", seed=1, epoch=0, batch_size=3, options=ALL))
    assert [each.signature for each in plain] == [each.signature for each in threaded]
    assert all(torch.equal(x.images[0], y.images[0]) for x, y in zip(plain, threaded, strict=True))


def test_targets_count_classes_from_one_and_scale_with_the_image(task: DetectionTask) -> None:
    (batch,) = task.batches("validation", seed=0, epoch=0, batch_size=4, options=DetectionOptions())
    targets = sorted(batch.targets, key=lambda each: -len(each["labels"]))
    assert targets[0]["labels"].tolist() == [1, 2]
    assert targets[0]["boxes"].tolist() == [[4, 4, 30, 30], [19, 9, 60, 40]]
    assert targets[-1]["boxes"].shape == (0, 4)
    assert 0 <= float(batch.images[0].min()) <= float(batch.images[0].max()) <= 1


def test_parts_of_a_batch(task: DetectionTask) -> None:
    (batch,) = task.batches("validation", seed=0, epoch=0, batch_size=4, options=DetectionOptions())
    parts = batch.split(3)
    assert [len(part) for part in parts] in ([1, 2, 1], [1, 1, 2], [2, 1, 1])
    assert [id(image) for part in parts for image in part.images] == [id(image) for image in batch.images]
    copy = batch.clone()
    copy.images[0].zero_()
    copy.take(batch)
    assert torch.equal(copy.images[0], batch.images[0])


# ---------------------------------------------------------------- detections


class Oracle(nn.Module):
    """Finds one box in every image, at a fixed share of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        found = []
        for image in images:
            height, width = image.shape[1:]
            box = torch.tensor([[0.25 * width, 0.5 * height, 0.75 * width, 1.0 * height]])
            found.append({"boxes": box, "scores": torch.ones(1), "labels": torch.ones(1, dtype=torch.int64)})
        return found


def test_detections_are_in_pixels_of_the_stored_images(write_voc: Callable[..., Path]) -> None:
    root = write_voc(size=(0, 0))
    write_image(root / "JPEGImages" / "000008.png", size=(640, 480))
    task = make(root)
    assert task.input_shape == (3, 48, 48)
    for batch_size in (1, 4):
        found = task.detect(Oracle(), "validation", batch_size=batch_size)
        assert found[0].boxes[0].tolist() == pytest.approx([160.0, 240.0, 480.0, 480.0])
        assert found[1].boxes[0].tolist() == pytest.approx([16.0, 24.0, 48.0, 48.0])
        assert found[0].labels.tolist() == [0]


def test_outputs_that_are_not_finite_are_nan(task: DetectionTask) -> None:
    oracle = Oracle()
    assert 0 <= task.evaluate(oracle, "validation") <= 1
    with torch.no_grad():
        oracle.weight.fill_(math.inf)
    assert math.isnan(task.evaluate(oracle, "validation"))


def test_a_split_without_objects_is_refused(write_voc: Callable[..., Path]) -> None:
    root = write_voc()
    for number in range(8, 12):
        file = root / "Annotations" / f"{number:06}.xml"
        file.write_text(f"<annotation><filename>{number:06}.png</filename></annotation>")
    with pytest.raises(DataError, match="the validation split has no object"):
        make(root)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda file: file.write_bytes(b"no image"), "000000.png: not a readable image"),
        (lambda file: write_image(file, size=(30, 30)), "000000.png: is 30x30, annotated as 64x48"),
    ],
)
def test_an_image_that_does_not_fit_its_annotation(
    write_voc: Callable[..., Path], change: Callable[[Path], object], line: str
) -> None:
    root = write_voc()
    change(root / "JPEGImages" / "000000.png")
    with pytest.raises(DataError, match=line):
        list(make(root).batches("train", seed=0, epoch=0, batch_size=8))


# ---------------------------------------------------------------- training


def weights(trial: TorchTrial) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in trial.state.model.state_dict().values()]


@pytest.mark.parametrize("every", [1, 2])
def test_a_resumed_training_equals_an_uninterrupted_one(
    write_voc: Callable[..., Path], tmp_path: Path, every: int
) -> None:
    """Also if it was interrupted between two evaluations, with sizes drawn by the network and all augmentations."""
    root = write_voc()

    def start(checkpoint: Path | None) -> TorchTrial:
        build = lambda classes: tiny(classes, train_sizes=(32, 40))  # noqa: E731
        task = make(root, evaluate_every=every, build=build)
        return TorchTrial(cast(Any, task), configuration(root, epochs=3, every=every), seed=4, checkpoint=checkpoint)

    whole = start(None)
    records = list(whole.epochs())
    assert [each.epoch for each in records] == ([1, 2, 3] if every == 1 else [2, 3])
    assert set(records[0].others) == {"map_50", "map_75"}
    file = tmp_path / "trial.ckpt"
    parts = start(file)
    assert parts._next_record() is None if every == 2 else parts._next_record() is not None
    for _ in range(3):  # each process trains one epoch
        parts = start(file)
        if parts.finished:
            break
        record = parts._next_record()
        if record is not None:
            parts.curve.append(record)
    assert parts.finished
    assert [each.value for each in parts.curve] == [each.value for each in records]
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(parts), strict=True))
    assert sum(each.seconds for each in parts.curve) > 0


def test_memory_that_runs_out_halves_the_images_of_a_pass_and_of_an_evaluation(
    write_voc: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_voc()
    task, trained, evaluated = make(root), [], []
    loss, detect = task.loss, task.detect

    def limited(model: nn.Module, batch: DetectionBatch, **given: Any) -> torch.Tensor:
        trained.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(model, batch, **given)

    def limited_detect(model: nn.Module, split: Any, *, batch_size: int | None = None, **given: Any) -> Any:
        evaluated.append(batch_size or task.evaluation_batch)
        if evaluated[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return detect(model, split, batch_size=batch_size, **given)

    monkeypatch.setattr(task, "loss", limited)
    monkeypatch.setattr(task, "detect", limited_detect)
    trial = TorchTrial(cast(Any, task), configuration(root, epochs=2), seed=0)
    assert len(list(trial.epochs())) == 2
    assert trial.recovered is not None
    assert trained[0] == 4
    assert max(trained[1:]) == 2
    assert sum(trained[1:]) == 2 * task.size("train")  # every image once an epoch, none twice
    assert evaluated == [4, 2, 1, 1]


def test_a_loss_that_is_not_finite_is_a_diverged_trial(write_voc: Callable[..., Path]) -> None:
    root = write_voc()
    given = configuration(root, epochs=4, every=4)
    training = given.training.model_copy(update={"lr": 1e6, "clip_norm": None})
    trial = TorchTrial(cast(Any, make(root, evaluate_every=4)), given.model_copy(update={"training": training}), seed=0)
    with pytest.raises(TrialError) as error:
        list(trial.epochs())
    assert error.value.kind == "diverged"


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("fcos", {"backbone": "resnet5"}, "task.backbone = 'resnet5': torchvision has no such"),
        ("small_fcos", {"fpn_channels": 40}, "task.model = 'small_fcos': num_channels"),
        ("ssd", {"head_convs": 2}, "task.head_convs = 2: ssd has none; leave it out"),
        ("torchvision:fcos_resnet5", {}, "no such detector; similar names: torchvision:fcos_resnet50_fpn"),
        ("torchvision:ssdlite320_mobilenet_v3_large", {"min_size": 99}, "task.min_size = 99: .* has its own"),
    ],
)
def test_an_impossible_detector_is_one_line(name: str, options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        build_detector(name, classes=2, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("retinanet", {"backbone": "resnet18", "fpn_channels": 32, "head_convs": 1, "min_size": 64}),
        ("faster_rcnn", {"backbone": "mobilenet_v3_small", "fpn_channels": 32, "min_size": 64}),
        ("ssd", {"backbone": "resnet18", "min_size": 64}),
        ("ssdlite", {"backbone": "mobilenet_v3_small", "min_size": 64}),
    ],
)
def test_every_family_trains_and_detects_with_another_backbone(name: str, options: dict[str, Any]) -> None:
    model = build_detector(name, classes=2, **options)
    images = [torch.rand(3, 48, 64), torch.rand(3, 64, 48)]
    box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    targets = [
        {"boxes": box, "labels": torch.tensor([2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sum(model(images, targets).values())
    assert isinstance(loss, torch.Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in model.backbone.parameters())  # type: ignore[union-attr]
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    model.eval()
    with torch.no_grad():
        found = model(images)
    assert {"boxes", "scores", "labels"} <= set(found[0])
