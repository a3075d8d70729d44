"""The kind: what `check` reports, the table of the data, and the examples of a trained network."""

from __future__ import annotations

from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.errors import DataError, StudyFileError
from ralr_tune.kinds.detection.kind import KIND
from ralr_tune.kinds.detection.section import DetectionSection
from ralr_tune.report.inventory import inventory_text
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.studyfile.checks import missing
from ralr_tune.tasks.examples import ExampleChart, ExampleImage
from ralr_tune.training.loop import TorchTrial
from tests.kinds.detection.conftest import write_image
from tests.kinds.detection.test_detection_task import STUDY

Write = Callable[..., Path]


def study(root: Path, **changes: str) -> StudySpec:
    """The small study with changed lines of [task] and [training]; "" removes a line."""
    lines = STUDY.format(path=root, epochs=1, every=1).splitlines()
    for key, value in changes.items():
        lines = [line for line in lines if not line.startswith(f"{key} =")]
        if value:
            lines.insert(lines.index('kind = "detection"') + 1, f"{key} = {value}")
    return parse_study("\n".join(lines))


def reported(spec: StudySpec) -> list[str]:
    return [each.line for each in KIND.problems(spec, sample=99)]


def test_a_good_study_has_no_problems(write_voc: Write) -> None:
    spec = study(write_voc())
    assert reported(spec) == []
    assert list(missing(spec)) == []


def test_all_problems_of_data_and_network_at_once(write_voc: Write) -> None:
    root = write_voc()
    (root / "JPEGImages" / "000001.png").write_bytes(b"")
    write_image(root / "JPEGImages" / "000009.png", size=(9, 9))
    lines = reported(study(root, fpn_channels="40", model='"fcos"', backbone='"resnet18"'))
    assert len(lines) == 3
    assert "num_channels (40) must be divisible by num_groups (32)" in lines[0]
    assert "000001.png: not a readable image" in lines[1]
    assert "000009.png: is 9x9, annotated as 64x48" in lines[2]


def test_a_batch_larger_than_the_training_data(write_voc: Write) -> None:
    spec = study(write_voc({"train": 3, "val": 2, "test": 2}))
    assert reported(spec) == [
        "training.batch_size = 4: must be at most 3, the number of training images (validation aside)"
    ]


def test_unreadable_annotations_do_not_hide_the_networks_problems(write_voc: Write) -> None:
    root = write_voc()
    (root / "Annotations" / "000000.xml").write_text("<")
    lines = reported(study(root, fpn_channels="40"))
    assert [("num_groups" in line, "not a readable XML file" in line) for line in lines] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": '"ssd"', "head_convs": ""}, "task.fpn_channels = 32: ssd has none; leave it out"),
        (
            {
                "model": '"torchvision:fcos_resnet50_fpn"',
                "fpn_channels": "",
                "head_convs": "",
                "backbone": '"resnet18"',
            },
            "task.backbone = resnet18: torchvision:fcos_resnet50_fpn has its own; leave it out",
        ),
    ],
)
def test_keys_that_a_detector_does_not_have(write_voc: Write, changes: dict[str, str], line: str) -> None:
    with pytest.raises(StudyFileError) as error:
        study(write_voc(), **changes)
    assert str(error.value) == f"study file: {line}"


def test_packages_that_are_not_installed(write_voc: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root, found = write_voc(), util.find_spec
    monkeypatch.setattr(
        "ralr_tune.kinds.detection.kind.find_spec", lambda name: None if name == "torchmetrics" else found(name)
    )
    (line,) = (each.line for each in missing(study(root)))
    assert line.startswith("task.kind = 'detection': needs torchmetrics; install them with: ")
    assert line.endswith(" -m pip install 'ralr-tune[detection]'")


# ---------------------------------------------------------------- the table of the data


def taken(spec: StudySpec, **more: Any) -> Any:
    assert isinstance(spec.task, DetectionSection)
    return KIND.inventory(spec.task, seed=0, **more)


def test_the_table_of_boxes_and_images(write_voc: Write) -> None:
    boxes = [[("cat", 5, 5, 30, 30), ("cat", 30, 30, 40, 40), ("dog", 9, 9, 9, 9)], [("dog", 20, 10, 90, 40)], []]
    found = taken(study(write_voc({"train": 6, "val": 3, "test": 3}, boxes=boxes)))
    assert [split.counts for split in found.splits] == [(4, 2), (2, 1), (2, 1)]
    assert [(split.total, split.holders) for split in found.splits] == [(6, (2, 2)), (3, (1, 1)), (3, (1, 1))]
    text = inventory_text(found)
    assert "4 in 2" in text
    assert "6 in 6" in text
    assert "skipped, no area: 4 boxes" in text
    assert "boxes that reach beyond their image, clipped to it: train 2, validation 1, test 1" in text
    assert "images without objects: train 2, validation 1, test 1" in text
    assert "verified: all 3 test images can be decoded" in text


def test_classes_without_objects_and_copies_are_named(write_voc: Write) -> None:
    root = write_voc({"train": 2, "val": 2, "test": 1})
    (root / "JPEGImages" / "000004.png").write_bytes((root / "JPEGImages" / "000000.png").read_bytes())
    (root / "Annotations" / "000004.xml").write_text(
        (root / "Annotations" / "000001.xml").read_text().replace("1.png", "4.png")
    )
    text = inventory_text(taken(study(root)))
    assert "classes without an object in test, which no mean includes: cat" in text
    assert "1 of 1 test images is an exact copy of train images" in text


def test_an_inventory_is_remembered_until_a_file_changes(write_voc: Write, tmp_path: Path) -> None:
    root, cache = write_voc(), tmp_path / "data"
    first = taken(study(root), cache=cache, contents=True)
    assert taken(study(root), cache=cache, contents=True) == first
    assert len(list(cache.glob("inventory-*.json"))) == 1
    write_image(root / "JPEGImages" / "000000.png", seed=77)
    changed = taken(study(root), cache=cache, contents=True)
    assert [a.digest == b.digest for a, b in zip(first.splits, changed.splits, strict=True)] == [False, True, True]


def test_a_damaged_test_image_is_found_before_training(write_voc: Write) -> None:
    root = write_voc()
    (root / "JPEGImages" / "000013.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"000013\.png: not a readable image"):
        taken(study(root))


# ---------------------------------------------------------------- examples


def test_examples_of_a_trained_network(write_voc: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ralr_tune.kinds.detection.shown.gathered.__kwdefaults__", {"draws": 2}, raising=False)
    spec = study(write_voc())
    task = KIND.load(spec.resolved_task({}), metric=spec.metric, seed=0, device="cpu")
    trial = TorchTrial(task, spec.configuration("monotone", {}), seed=0)
    list(trial.epochs())
    content = KIND.examples(task, trial)
    shown = KIND.shown_examples(spec.task, {"monotone": content})  # type: ignore[arg-type]
    kinds = [type(part) for part in shown.parts]
    assert (kinds.count(ExampleChart), kinds.count(ExampleImage)) == (len(task.classes), 3)
    assert content["images"] == 4
