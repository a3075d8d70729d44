from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.samples import Source
from ralr_tune.kinds.classification.sources import open_source
from tests.kinds.conftest import picture

Writer = Callable[..., Path]
CLASSES = ["ant", "bee", "cat"]


def everything(source: Source) -> None:
    source.train.load()
    source.test().load()


def opened(root: Path, **options: Any) -> Source:
    return open_source({"source": "folder", "path": str(root), **options})


def test_folders_define_the_splits(write_tree: Writer) -> None:
    root = write_tree({"train": CLASSES, "val": ["ant", "cat"], "test": CLASSES})
    source = opened(root)
    assert source.classes == ("ant", "bee", "cat")
    assert source.train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert source.validation is not None
    assert source.validation.labels.tolist() == [0] * 3 + [2] * 3
    assert source.test().load().shape == (9, 3, 10, 12)
    first = np.asarray(Image.open(root / "train" / "ant" / "0.png")).transpose(2, 0, 1)
    assert np.array_equal(source.train.load()[0], first)


def test_without_val_there_is_no_validation_data(write_tree: Writer) -> None:
    assert opened(write_tree({"train": CLASSES, "test": CLASSES})).validation is None


def test_a_fifth_of_a_single_tree_is_the_test_split(write_tree: Writer) -> None:
    source = opened(write_tree({"": CLASSES}, count=10))
    assert np.bincount(source.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(source.test().labels).tolist() == [2, 2, 2]
    assert set(source.train.rows).isdisjoint(source.test().rows)


def test_size_resizes_the_shorter_side_and_crops_the_centre(write_tree: Writer) -> None:
    root = write_tree({"": CLASSES}, size=(40, 20))
    images = opened(root, size=4).train.load()
    with Image.open(root / "ant" / "0.png") as picture:
        expected = picture.resize((8, 4), Image.Resampling.BILINEAR).crop((2, 0, 6, 4))
    assert images.shape[1:] == (3, 4, 4)
    assert any(np.array_equal(image, np.asarray(expected).transpose(2, 0, 1)) for image in images)


def test_unequal_sizes_ask_for_size(write_tree: Writer) -> None:
    root = write_tree({"": CLASSES})
    Image.new("RGB", (7, 9)).save(root / "cat" / "9.png")
    with pytest.raises(DataError, match=r"unequal size \(12x10 and 7x9 pixels\); set data.size = N"):
        everything(opened(root))
    assert opened(root, size=8).train.load().shape[1:] == (3, 8, 8)


def test_grey_and_transparent_pictures_become_colour(tmp_path: Path) -> None:
    for name, mode in (("a", "L"), ("b", "RGBA"), ("c", "P")):
        (tmp_path / name).mkdir()
        for n in range(2):
            Image.new(mode, (4, 4)).save(tmp_path / name / f"{n}.png")
    assert opened(tmp_path).train.load().shape == (5, 3, 4, 4)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for n in range(2):
            Image.new("RGB", (6, 4)).save(tmp_path / name / f"{n}.jpg", exif=exif)
    assert opened(tmp_path).train.load().shape[2:] == (6, 4)


def test_hidden_folders_are_not_classes(write_tree: Writer) -> None:
    root = write_tree({"train": CLASSES, "test": [*CLASSES, ".ipynb_checkpoints"]})
    (root / "train" / ".cache").mkdir()
    source = opened(root)
    assert source.classes == ("ant", "bee", "cat")
    assert len(source.test()) == 9


# ---------------------------------------------------------------- names of splits


@pytest.mark.parametrize(
    "names", [("Training", "Testing", None), ("Train", "Test", "Val"), ("TRAIN_images", "test-set", "dev")]
)
def test_splits_go_by_their_usual_names(write_tree: Writer, names: tuple[str, str, str | None]) -> None:
    train, test, own = names
    source = opened(write_tree({train: CLASSES, test: CLASSES} | ({own: CLASSES} if own else {})))
    assert source.classes == ("ant", "bee", "cat")
    assert (source.validation is not None) == (own is not None)
    assert len(source.test()) == 9


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        (["train1", "test1"], "test1, train1 look like splits"),
        (["seg_train/cat", "seg_train/dog", "seg_test/cat", "seg_pred"], "seg_test, seg_train look like splits"),
        (["train/cat", "train/dog", "test/cat", "val2/cat"], "val2 looks like a split"),
        (["train/cat", "train/dog", "test/cat", "eval/cat"], "eval looks like a split"),
        (["test/cat", "val/cat"], "test, val look like splits"),
        (["train/cat", "train/dog", "test/cat", "val/cat", "dev/cat"], "dev, val name the same split"),
        (["train/cat", "train/dog", "Train/cat", "test/cat"], "Train, train name the same split"),
        (["train", "test"], "must contain one folder of images per class, for 2 to 100000 classes; found none"),
        (["train/cat", "train/dog", "val/cat"], "test: missing; a folder with train/ also needs test/"),
        (["deep/train/cat", "deep/test/cat"], "did you mean data.path = .*deep', which contains test, train"),
        (["cat", "dog", "labels/"], "no images for the classes labels"),
    ],
)
def test_what_looks_like_splits_and_is_none_is_refused(
    write_tree: Writer, tmp_path: Path, names: list[str], refused: str
) -> None:
    root = write_tree({"": [name for name in names if not name.endswith("/")]}, count=2)
    for name in names:
        (root / name).mkdir(exist_ok=True)
    with pytest.raises(DataError, match=refused):
        opened(root)


@pytest.mark.parametrize(
    "names",
    [
        ["bullet_train", "car", "freight_train"],
        ["test_tube", "train_station"],
        ["bus", "car", "train"],
        ["invalid", "valid"],
        ["dev", "ops"],
    ],
)
def test_names_of_classes_may_contain_words_of_splits(write_tree: Writer, names: list[str]) -> None:
    assert opened(write_tree({"": names})).classes == tuple(names)


def test_folders_beside_the_splits_are_named(write_tree: Writer) -> None:
    root = write_tree({"train": CLASSES, "test": CLASSES, "": ["extra"]})
    assert [(each.what, each.why, each.count) for each in opened(root).skipped] == [("extra/", "not a split", 3)]


# ---------------------------------------------------------------- what is read, and what is skipped


def test_hidden_and_system_names_are_ignored_at_every_depth(write_tree: Writer) -> None:
    root = write_tree({"": CLASSES}, count=5)
    before = opened(root).train.load()
    for place in (root, root / "ant", root / "bee" / "deep"):
        for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
            (place / name).mkdir(parents=True)
            shutil.copy(root / "ant" / "0.png", place / name / "0-copy.png")
        (place / "._0.png").write_bytes(b"a resource fork")
    source = opened(root)
    assert source.classes == ("ant", "bee", "cat")
    assert np.array_equal(source.train.load(), before)
    assert {(each.group, each.what) for each in source.skipped} == {
        (group, name) for group in ("", "ant", "bee") for name in ("._*", ".ipynb_checkpoints/", "@eaDir/", "__MACOSX/")
    }


def test_files_are_read_or_counted_by_their_ending(write_tree: Writer) -> None:
    root = write_tree({"train": CLASSES, "test": CLASSES})
    cats = root / "train" / "cat"
    for number, name in enumerate(("jfif", "jpe", "gif", "avif", "JPG")):
        picture(number).convert("L").save(cats / f"{number}.{name}")
    for name in ("0.heic", "1.HEIC", "notes.txt", "README"):
        (cats / name).write_bytes(b"x")
    (root / "train" / "0.png").write_bytes(b"x")
    source = opened(root)
    assert np.bincount(source.train.labels).tolist() == [3, 3, 8]
    assert len(source.train.load()) == 14
    assert {(each.split, each.group, each.what, each.count) for each in source.train.skipped} == {
        ("train", "cat", ".heic", 2),
        ("train", "cat", ".txt", 1),
        ("train", "cat", "no ending", 1),
        ("train", "", ".png", 1),
    }


def test_what_cannot_be_listed_or_read_is_named(write_tree: Writer) -> None:
    root = write_tree({"train": CLASSES, "test": CLASSES})
    (root / "train" / "bee" / "9.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"bee/9\.png: not a readable image: .*No such file"):
        opened(root)
    (root / "train" / "bee" / "9.png").unlink()
    os.mkfifo(root / "train" / "bee" / "9.png")  # no process will ever write into it
    assert [(each.what, each.why) for each in opened(root).train.skipped] == [(".png", "not a file")]


@pytest.mark.parametrize("folder", ["val", "test"])
def test_classes_missing_from_train_are_reported(write_tree: Writer, folder: str) -> None:
    trees = {"train": CLASSES, "val": CLASSES, "test": CLASSES} | {folder: ["ant", "dog"]}
    with pytest.raises(
        DataError, match=f"{folder}: has classes that train/ does not have: dog; allowed: ant, bee, cat"
    ):
        opened(write_tree(trees))


def test_a_class_without_images_is_reported(write_tree: Writer) -> None:
    root = write_tree({"train": CLASSES, "test": CLASSES})
    shutil.rmtree(root / "train" / "bee")
    (root / "train" / "bee").mkdir()
    with pytest.raises(DataError, match=r"train: no images for the classes bee; allowed: \.jpg"):
        opened(root)
    assert opened(root, classes=["cat", "ant"]).classes == ("cat", "ant")


def test_folders_that_are_not_a_data_set_are_reported(write_tree: Writer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DataError, match="one folder of images per class, for 2 to 100000 classes; found none"):
        opened(tmp_path)
    with pytest.raises(DataError, match="test: missing; a folder with train/ also needs test/"):
        opened(write_tree({"train": CLASSES}))


def test_a_damaged_image_is_named(write_tree: Writer) -> None:
    root = write_tree({"train": CLASSES, "test": CLASSES})
    (root / "train" / "bee" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bee/1\.png: not a readable image"):
        opened(root).train.load()


def test_test_images_are_opened_on_first_request(write_tree: Writer) -> None:
    root = write_tree({"train": CLASSES, "test": CLASSES})
    for file in (root / "test").rglob("*.png"):
        file.write_bytes(b"poison")
    source = opened(root)
    assert len(source.train.load()) == 9
    with pytest.raises(DataError, match="not a readable image"):
        source.test().load()


def test_limit_reads_no_more_than_it_needs(write_tree: Writer) -> None:
    root = write_tree({"train": CLASSES, "test": CLASSES}, count=4)
    source = opened(root, limit=3)
    kept = {(int(label), int(row) % 4) for label, row in zip(source.train.labels, source.train.rows, strict=True)}
    for number, name in enumerate(CLASSES):
        for n in range(4):
            if (number, n) not in kept:
                (root / "train" / name / f"{n}.png").write_bytes(b"poison")
    assert len(source.train.load()) == 3
