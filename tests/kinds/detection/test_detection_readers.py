"""VOC and COCO annotations: what is read, what is left out with a count, and one line for everything that is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ralr_tune.errors import DataError
from ralr_tune.kinds.detection.annotated import Cleaned
from ralr_tune.kinds.detection.coco import read_coco
from ralr_tune.kinds.detection.splits import hold_out, restrict
from ralr_tune.kinds.detection.voc import read_voc
from tests.kinds.detection.conftest import HEIGHT, WIDTH, write_image, xml

Write = Callable[..., Path]


# ---------------------------------------------------------------- VOC


@pytest.mark.parametrize("place", [".", "VOCdevkit/VOC2007", "VOC2012"])
def test_the_challenges_layout_at_its_usual_places(write_voc: Write, tmp_path: Path, place: str) -> None:
    root = tmp_path / "outer" / place
    shutil.copytree(write_voc(), root, dirs_exist_ok=True)
    source = read_voc(str(tmp_path / "outer"))
    assert source.classes == ("cat", "dog")
    assert source.validation is not None
    assert (len(source.train), len(source.validation), len(source.test())) == (8, 4, 4)
    assert source.train.boxes(2).tolist() == [4, 4]


def test_voc_counts_pixels_from_one_and_includes_the_last(write_voc: Write) -> None:
    root = str(write_voc())
    first = read_voc(root).train.pictures[0].objects
    assert first.corners.tolist() == [[4, 4, 30, 30], [19, 9, 60, 40]]
    assert first.areas.tolist() == [26 * 26, 41 * 31]
    assert read_voc(root, one_based=False).train.pictures[0].objects.corners[0].tolist() == [5, 5, 30, 30]


def test_an_image_without_objects_has_no_boxes(write_voc: Write) -> None:
    empty = read_voc(str(write_voc())).train.pictures[2].objects
    assert (empty.corners.shape, empty.corners.dtype, empty.labels.dtype) == ((0, 4), np.float32, np.int64)


def test_the_difficult_flag(write_voc: Write) -> None:
    source = read_voc(str(write_voc(more="<difficult>1</difficult>")))
    assert source.train.pictures[0].objects.difficult.tolist() == [True, True]


def test_a_missing_size_is_read_from_the_image(write_voc: Write) -> None:
    picture = read_voc(str(write_voc(size=(0, 0)))).train.pictures[0]
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)


def test_splits_as_folders_and_images_found_by_stem(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        for number in range(2):
            write_image(tmp_path / split / f"{number}.jpg", number)
            text = xml("of another tool.jpeg", [("cat", 5, 5, 30, 30)])
            (tmp_path / split / f"{number}.xml").write_text(text)
    source = read_voc(str(tmp_path))
    assert source.validation is not None
    assert [Path(each.file).parent.name for each in source.validation.pictures] == ["valid", "valid"]


def test_without_splits_a_seeded_fifth_is_the_test_split(write_voc: Write) -> None:
    root = write_voc({"train": 20})
    shutil.rmtree(root / "ImageSets")
    source, again = read_voc(str(root)), read_voc(str(root))
    files = [[each.file for each in part.pictures] for part in (source.train, source.test())]
    assert (len(files[0]), len(files[1])) == (16, 4)
    assert not set(files[0]) & set(files[1])
    assert files[1] == [each.file for each in again.test().pictures]


def test_trainval_is_train_if_there_is_no_other(write_voc: Write) -> None:
    source = read_voc(str(write_voc({"trainval": 8, "test": 4})))
    assert len(source.train) == 8
    held_out, rest = hold_out(source.train, 0.25, seed=0)
    assert (len(held_out), len(rest)) == (2, 6)


def test_boxes_without_area_or_beyond_the_image_are_counted(write_voc: Write) -> None:
    boxes = [
        [
            ("cat", 5, 5, 5, 5),
            ("cat", 9, 9, 4, 20),
            ("dog", 100, 5, 120, 30),
            ("dog", 50, 30, 90, 60),
            ("cat", 1, 1, 64, 48),
        ],
    ]
    train = read_voc(str(write_voc(boxes=boxes))).train
    assert train.cleaned == {"cat": Cleaned(empty=16), "dog": Cleaned(outside=8, clipped=8)}
    assert train.pictures[0].objects.corners.tolist() == [[49, 29, WIDTH, HEIGHT], [0, 0, WIDTH, HEIGHT]]


BROKEN_VOC: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing image": (
        lambda root: (root / "JPEGImages/000001.png").unlink(),
        "000001.xml: image '000001.png': missing",
    ),
    "a missing annotation": (lambda root: (root / "Annotations/000001.xml").unlink(), "000001.xml: missing annotation"),
    "an unknown class in val": (
        lambda root: (root / "Annotations/000009.xml").write_text(xml("000009.png", [("cow", 1, 1, 9, 9)])),
        "000009.xml: box 1: unknown class 'cow'; allowed: the classes of train, cat, dog",
    ),
    "a box as shares of the image": (
        lambda root: (root / "Annotations/000001.xml").write_text(xml("000001.png", [("dog", 0.1, 0.2, 0.5, 0.9)])),
        "000001.xml: box 1: (0.1, 0.2, 0.5, 0.9) is a share of the image; must be pixels",
    ),
    "a word as a number": (
        lambda root: (root / "Annotations/000001.xml").write_text(xml("000001.png", [("dog", "ten", 2, 5, 9)])),  # type: ignore[list-item]
        "000001.xml: box 1: xmin = ten, ymin = 2, xmax = 5, ymax = 9: must be four numbers",
    ),
    "no class": (
        lambda root: (root / "Annotations/000001.xml").write_text(xml("000001.png", [("", 1, 2, 5, 9)])),
        "000001.xml: box 1: has no class (<name>)",
    ),
    "cut off": (
        lambda root: (root / "Annotations/000001.xml").write_text("<annotation><object>"),
        "000001.xml: not a readable XML file: no element found",
    ),
    "no list for train": (
        lambda root: (root / "ImageSets/Main/train.txt").unlink(),
        "needs train.txt or trainval.txt, with the names of the images",
    ),
    "no objects": (
        lambda root: [file.write_text(xml(f"{file.stem}.png", [])) for file in (root / "Annotations").iterdir()],
        "the training images have no objects",
    ),
    "no folder": (shutil.rmtree, "no such folder"),
}


@pytest.mark.parametrize("case", BROKEN_VOC)
def test_a_broken_voc_data_set_is_one_line_with_file_and_box(write_voc: Write, case: str) -> None:
    damage, line = BROKEN_VOC[case]
    root = write_voc()
    damage(root)
    with pytest.raises(DataError) as error:
        read_voc(str(root))
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_all_problems_are_reported_at_once(write_voc: Write) -> None:
    root = write_voc()
    (root / "JPEGImages/000001.png").unlink()
    (root / "Annotations/000003.xml").unlink()
    with pytest.raises(DataError, match=r"000001.*000003"):
        read_voc(str(root))


def test_an_image_without_an_annotation_in_a_folder(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png", number)
    (tmp_path / "0.xml").write_text(xml("0.png", [("cat", 1, 1, 20, 20)]))
    with pytest.raises(DataError, match=r"1\.png: no annotation.*2\.png"):
        read_voc(str(tmp_path))


def test_a_split_in_percent_is_refused(write_voc: Write) -> None:
    boxes = [[("cat", 5.5, 5, 60, 95), ("dog", 30, 30, 99, 100)]]
    root = write_voc(boxes=boxes, size=(640, 480))
    with pytest.raises(DataError, match=r"box 1: .* all 16 boxes of train end within 100, .*: they are in percent"):
        read_voc(str(root))


# ---------------------------------------------------------------- COCO


def test_cocos_layout(write_coco: Write) -> None:
    source = read_coco(str(write_coco(("train", "val", "test"))))
    assert source.classes == ("cat", "dog")  # by id, without the unused one
    objects = source.train.pictures[0].objects
    assert objects.corners.tolist() == [[10, 5, 30, 20], [0, 0, 64, 48]]
    assert (objects.labels.tolist(), objects.crowd.tolist()) == ([1, 0], [False, True])
    assert objects.areas.tolist() == [77, 64 * 48]
    assert source.train.boxes(2).tolist() == [0, 1]
    assert len(source.train.pictures[1].objects) == 0
    assert "train2017" in source.train.pictures[0].file
    assert "test2017" in source.test().pictures[0].file


def test_one_file_a_folder_as_tools_export_it(write_coco: Write, tmp_path: Path) -> None:
    root = write_coco()
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        (tmp_path / "export" / name).mkdir(parents=True)
        shutil.copytree(root / f"{split}2017", tmp_path / "export" / name, dirs_exist_ok=True)
        file = root / "annotations" / f"instances_{split}2017.json"
        shutil.copy(file, tmp_path / "export" / name / "_annotations.coco.json")
    source = read_coco(str(tmp_path / "export"))
    assert source.validation is not None
    assert Path(source.validation.pictures[0].file).parent.name == "valid"


def changed(key: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[key][0].update(values)


BROKEN_COCO: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an unknown category": (
        changed("annotations", category_id=4),
        "instances_train2017.json: annotation 1 (1.png): category_id 4 is unknown; allowed: 7, 3, 9",
    ),
    "an unknown image": (changed("annotations", image_id=8), "annotation 1: image_id 8 is not among the images"),
    "three numbers": (
        changed("annotations", bbox=[1, 2, 3]),
        "annotation 1 (1.png): bbox = [1, 2, 3]: must be four numbers",
    ),
    "shares of the image": (
        changed("annotations", bbox=[0.1, 0.1, 0.5, 0.5]),
        "annotation 1 (1.png): (0.1, 0.1, 0.6, 0.6) is a share of the image; must be pixels",
    ),
    "a missing image": (changed("images", file_name="none.png"), "image 'none.png': missing below"),
    "two images with one id": (changed("images", id=2), "image 2: id 2 occurs twice"),
    "no list": (lambda content: content.pop("categories"), "categories missing; must be lists, as in COCO's"),
}


@pytest.mark.parametrize("case", BROKEN_COCO)
def test_a_broken_coco_file_is_one_line_with_file_and_box(write_coco: Write, case: str) -> None:
    change, line = BROKEN_COCO[case]
    with pytest.raises(DataError) as error:
        read_coco(str(write_coco(change=change)))
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def many(content: dict[str, Any]) -> None:
    """Boxes as two corners, in the right and lower half."""
    box = [35, 20, 60, 45]
    content["annotations"] = [{"id": n, "image_id": 1, "category_id": 3, "bbox": box} for n in range(12)]


def test_corners_are_told_from_corner_and_size(write_coco: Write) -> None:
    root = str(write_coco(change=many))
    with pytest.raises(DataError, match=r'12 of 12 boxes end outside .* set data.box_format = "xyxy"'):
        read_coco(root)
    assert read_coco(root, box_format="xyxy").train.pictures[0].objects.corners[0].tolist() == [35, 20, 60, 45]


def test_two_files_for_one_split_are_refused(write_coco: Write) -> None:
    root = write_coco()
    shutil.copy(root / "annotations/instances_train2017.json", root / "annotations/instances_train2014.json")
    with pytest.raises(DataError, match="several for train"):
        read_coco(str(root))


def test_damaged_json(write_coco: Write) -> None:
    root = write_coco()
    (root / "annotations/instances_train2017.json").write_text(json.dumps({})[:1])
    with pytest.raises(DataError, match=r"instances_train2017\.json: not a readable JSON file"):
        read_coco(str(root))


# ---------------------------------------------------------------- subsets


def test_chosen_classes_keep_all_images(write_voc: Write) -> None:
    source = restrict(read_voc(str(write_voc())), classes=["dog"], limit=None)
    assert source.classes == ("dog",)
    assert len(source.train) == 8
    assert source.train.boxes(1).tolist() == [4]
    assert {label for each in source.test().pictures for label in each.objects.labels.tolist()} == {0}


@pytest.mark.parametrize("classes", [["cow"], ["dog", 1], [2]])
def test_impossible_classes_are_refused(write_voc: Write, classes: list[str | int]) -> None:
    with pytest.raises(DataError, match=r"data\.classes"):
        restrict(read_voc(str(write_voc())), classes=classes, limit=None)


def test_a_limit_of_training_images_alone(write_voc: Write) -> None:
    source = read_voc(str(write_voc()))
    limited = restrict(source, classes=None, limit=3)
    assert (len(limited.train), len(limited.test())) == (3, 4)
    again = restrict(source, classes=None, limit=3)
    assert [each.file for each in limited.train.pictures] == [each.file for each in again.train.pictures]
