"""The contents of a data set, and whether its test data can be read: checked before the first trial, and stored."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification import inventory as inventory_module
from ralr_tune.kinds.classification import tree
from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.kinds.classification.section import ClassificationSection
from ralr_tune.records import Inventory
from tests.kinds.conftest import picture

Writer = Callable[..., Path]
CLASSES = ["ant", "bee", "cat"]


def section(data: dict[str, Any], **task: Any) -> ClassificationSection:
    return ClassificationSection.model_validate(
        {"kind": "classification", "data": data, "model": "small_cnn", "validation": 0.25} | task
    )


def inventory_of(root: Path, cache: Path | None = None, sample: int | None = None, **data: Any) -> Inventory:
    """The inventory of a folder, or of an .npz file."""
    source = {"source": "arrays"} if root.is_file() else {"source": "folder", "size": 8}
    found = KIND.inventory(section(source | {"path": str(root)} | data), seed=0, cache=cache, sample=sample)
    assert found is not None
    return found


def counts(found: Inventory) -> dict[str, tuple[int, ...]]:
    return {split.name: split.counts for split in found.splits}


@pytest.fixture
def root(write_tree: Writer) -> Path:
    """Distinct pictures in train/, val/ and test/."""
    return write_tree({"train": CLASSES, "val": CLASSES, "test": CLASSES}, distinct=True)


def test_counts_are_those_that_trials_see(root: Path, write_npz: Writer) -> None:
    assert counts(inventory_of(root)) == {"train": (3, 3, 3), "validation": (3, 3, 3), "test": (3, 3, 3)}
    assert counts(inventory_of(write_npz())) == {"train": (5, 5, 5), "validation": (2, 2, 1), "test": (2, 2, 2)}
    chosen = inventory_of(root, classes=["cat", "ant"], limit=4)
    assert (chosen.classes, counts(chosen)["train"]) == (("cat", "ant"), (2, 2))


def test_each_skipped_kind_is_listed_once(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "train" / "cat" / "x.heic").touch()
    (root / "test" / "cat" / "x.heic").touch()
    assert sorted((each.split, each.group, each.what, each.count) for each in inventory_of(root).skipped) == [
        ("test", "cat", ".heic", 1),
        ("train", "cat", ".heic", 1),
    ]


@pytest.mark.parametrize(("folder", "split"), [("val", "validation"), ("test", "test")])
def test_splits_without_the_chosen_classes_are_refused(root: Path, folder: str, split: str) -> None:
    for name in ("ant", "bee"):
        shutil.rmtree(root / folder / name)
    with pytest.raises(DataError, match=rf"the {split} split has no image of the classes in data\.classes"):
        inventory_of(root, classes=["ant", "bee"])


# ---------------------------------------------------------------- verifying the test data


def test_test_images_that_cannot_be_read_are_named_in_one_line(root: Path) -> None:
    (root / "test" / "ant" / "1.png").write_bytes(b"")
    (root / "test" / "cat" / "2.png").write_bytes((root / "test" / "cat" / "2.png").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"ant/1\.png: not a readable image: .* \(and 1 more: test/cat/2\.png\)$"):
        inventory_of(root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"test_images": np.zeros((6, 5, 5, 3), np.uint8)},
            r"test images have shape \(3, 5, 5\), training images \(3, 5, 4\)",
        ),
        (
            {"test_images": np.zeros((6, 5, 4), np.uint8)},
            r"test images have shape \(1, 5, 4\), training images \(3, 5, 4\)",
        ),
        ({"test_images": np.zeros((6, 5, 4, 3), np.float32)}, "test_images is float32"),
        ({"test_labels": np.array([0, 1, 2, 3, 0, 1])}, "test_labels go from 0 to 3; allowed: 0 to 2"),
        ({"test_labels": np.array([0, 0, 0])}, "N = 3 as in the labels"),
        (
            {"val_images": np.zeros((2, 5, 5, 3), np.uint8), "val_labels": np.array([0, 1])},
            r"validation images have shape \(3, 5, 5\), training images \(3, 5, 4\)",
        ),
    ],
)
def test_test_arrays_that_do_not_fit_are_refused(write_npz: Writer, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        inventory_of(write_npz(**changes))


def test_a_worker_verifies_before_it_trains(root: Path, tmp_path: Path) -> None:
    (root / "test" / "bee" / "0.png").write_bytes(b"")
    (tmp_path / "out").mkdir()
    task = section({"source": "folder", "path": str(root), "size": 8})
    options: dict[str, Any] = {"metric": KIND.default_metric, "seed": 0, "device": "cpu"}
    with pytest.raises(DataError, match=r"bee/0\.png: not a readable image"):
        KIND.load(task, **options, cache=tmp_path / "out" / "data")
    KIND.load(task, **options)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of test images that were decoded, by inventory."""
    verify, numbers = inventory_module._verify, list[int]()

    def counting(*arguments: Any) -> int:
        numbers.append(verify(*arguments))
        return numbers[-1]

    monkeypatch.setattr(inventory_module, "_verify", counting)
    return numbers


def test_verified_data_are_verified_again_only_after_a_change(root: Path, tmp_path: Path, decoded: list[int]) -> None:
    cache = tmp_path / "out" / "data"
    cache.parent.mkdir()
    first = inventory_of(root, cache)
    assert inventory_of(root, cache) == inventory_of(root, cache, size=16) == first
    assert decoded == [9]
    os.utime(root / "test" / "ant" / "0.png", ns=(0, 0))
    inventory_of(root, cache)
    (root / "train" / "ant" / "x.txt").touch()
    assert inventory_of(root, cache).skipped
    assert decoded == [9, 9, 9]
    for file in cache.glob("inventory-*.json"):
        file.write_text("{")
    inventory_of(root, cache)
    assert decoded == [9, 9, 9, 9]


def test_without_a_writable_folder_nothing_is_stored(root: Path, tmp_path: Path, decoded: list[int]) -> None:
    for cache in (None, tmp_path / "nowhere" / "data"):
        assert inventory_of(root, cache).verified == 9
    assert not (tmp_path / "nowhere").exists()
    assert decoded == [9, 9]


def test_a_sample_is_spread_over_the_split_and_not_stored(root: Path, tmp_path: Path, decoded: list[int]) -> None:
    (tmp_path / "out").mkdir()
    assert inventory_of(root, tmp_path / "out" / "data", sample=4).verified == 4
    assert inventory_of(root, tmp_path / "out" / "data", sample=100).verified == 9
    assert not (tmp_path / "out" / "data").exists()
    (root / "test" / "cat" / "2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"cat/2\.png"):
        inventory_of(root, sample=2)


class Flat(torchvision.datasets.VisionDataset):  # type: ignore[misc]
    """Files of its root, one of which may be damaged."""

    def __init__(self, root: str, train: bool = True) -> None:
        super().__init__(root)
        self.split = "train" if train else "test"

    def __len__(self) -> int:
        return 10

    def __getitem__(self, row: int) -> tuple[Any, int]:
        with Image.open(Path(self.root) / self.split / f"{row}.png") as opened:
            return opened.convert("RGB"), row % 2


def test_sets_of_torchvision_are_verified_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int]
) -> None:
    monkeypatch.setattr(torchvision.datasets, "Flat", Flat, raising=False)
    for number in range(10):
        for split in ("train", "test"):
            (tmp_path / "set" / split).mkdir(parents=True, exist_ok=True)
            picture(number).save(tmp_path / "set" / split / f"{number}.png")
    task = section({"source": "torchvision", "dataset": "Flat", "root": str(tmp_path / "set")})
    (tmp_path / "out").mkdir()
    for _ in range(2):
        found = KIND.inventory(task, seed=0, cache=tmp_path / "out" / "data")
        assert (found.verified, found.duplicates) == (10, None)
    assert decoded == [10]
    (tmp_path / "set" / "test" / "3.png").write_bytes(b"")
    with pytest.raises(DataError, match="sample 3 is not a readable image"):
        KIND.inventory(task, seed=0, cache=tmp_path / "out" / "data")


def test_digits_need_no_file() -> None:
    found = KIND.inventory(section({"source": "digits"}), seed=0)
    assert (found.verified, found.duplicates, len(found.classes)) == (359, (), 10)


# ---------------------------------------------------------------- digests of the contents


def digests(found: Inventory) -> dict[str, str | None]:
    return {split.name: split.digest for split in found.splits}


def read_digests(root: Path, **data: Any) -> dict[str, str | None]:
    source = {"source": "arrays"} if root.is_file() else {"source": "folder", "size": 8}
    return digests(KIND.inventory(section(source | {"path": str(root)} | data), seed=0, contents=True))


def test_digests_are_of_contents_not_of_names_times_or_places(root: Path, tmp_path: Path) -> None:
    first = read_digests(root)
    assert None not in first.values()
    copied = shutil.copytree(root, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    for file in copied.rglob("*.png"):
        os.utime(file, ns=(0, 0))
        file.rename(file.with_name(f"renamed-{file.name}"))
    assert read_digests(copied) == first == read_digests(root, size=16)


def test_digests_differ_if_contents_classes_or_their_order_do(root: Path, tmp_path: Path) -> None:
    first = read_digests(root)
    ant, bee, other = (root / "train" / name for name in ("ant/0.png", "bee/0.png", "ant/1.png"))
    for one, two in ((ant, bee), (ant, other)):
        for turn in ("there", "back"):
            held = one.read_bytes()
            one.write_bytes(two.read_bytes())
            two.write_bytes(held)
            changed = read_digests(root)
            assert (changed["validation"], changed["test"]) == (first["validation"], first["test"])
            if turn == "there":
                assert changed["train"] != first["train"]
        assert changed == first


def test_arrays_digits_and_restricted_data_have_digests(write_npz: Writer, root: Path) -> None:
    file = write_npz()
    first, fewer = read_digests(file), read_digests(file, limit=9)
    assert first["train"] != fewer["train"]
    assert first["test"] == fewer["test"]
    assert first == read_digests(file)
    assert None not in read_digests(root, classes=["ant", "cat"]).values()
    found = digests(KIND.inventory(section({"source": "digits"}), seed=0, contents=True))
    assert len({*found.values()}) == 3


def loaded(root: Path, out: Path) -> Any:
    out.mkdir(exist_ok=True)
    task = section({"source": "folder", "path": str(root), "size": 8})
    return KIND.load(task, metric=KIND.default_metric, seed=0, device="cpu", cache=out / "data")


def test_a_task_hashes_what_it_decodes_and_reads_nothing_twice(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_digests(root)
    whole, digest = list[str](), tree._digest

    def counting(path: str, size: int, quick: bool) -> int:
        whole.extend([path] * (not quick))
        return digest(path, size, quick)

    monkeypatch.setattr(tree, "_digest", counting)
    found = KIND.inventory_of(loaded(root, tmp_path / "out"))
    assert found is not None
    assert digests(found) == expected
    assert whole == []
    # remembered: a later process need not read anything to know them
    again = KIND.inventory(
        section({"source": "folder", "path": str(root), "size": 8}), seed=0, cache=tmp_path / "out" / "data"
    )
    assert again is not None
    assert digests(again) == expected
    assert whole == []


def test_test_data_that_change_while_a_worker_runs_are_refused_when_they_are_read(root: Path, tmp_path: Path) -> None:
    task = loaded(root, tmp_path / "out")
    model = task.build_model(0)
    file = root / "test" / "ant" / "0.png"
    os.utime(file, ns=(0, 0))  # touched, but the same
    task.evaluate(model, "test")
    task = loaded(root, tmp_path / "out")
    picture(77).save(file)
    with pytest.raises(DataError, match=r"test/: the test images changed since this process verified them"):
        task.evaluate(model, "test")


def test_sets_of_torchvision_have_digests_of_their_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "Flat", Flat, raising=False)
    for number in range(10):
        for split in ("train", "test"):
            (tmp_path / "set" / split).mkdir(parents=True, exist_ok=True)
            picture(number).save(tmp_path / "set" / split / f"{number}.png")
    task = section({"source": "torchvision", "dataset": "Flat", "root": str(tmp_path / "set")})
    first = digests(KIND.inventory(task, seed=0, contents=True))
    picture(3).save(tmp_path / "set" / "train" / "3.png", compress_level=1)
    assert digests(KIND.inventory(task, seed=0, contents=True)) == first
    picture(99).save(tmp_path / "set" / "train" / "3.png")
    assert digests(KIND.inventory(task, seed=0, contents=True)) != first


# ---------------------------------------------------------------- exact copies


def test_copies_across_splits_are_counted_and_named(root: Path) -> None:
    for split, copies in (("val", 2), ("test", 1)):
        for number in range(copies):
            shutil.copy(root / "train" / "ant" / f"{number}.png", root / split / "bee" / f"copy-{number}.png")
    shutil.copy(root / "train" / "ant" / "0.png", root / "train" / "cat" / "within.png")
    found = {(each.split, each.of): (each.count, each.examples[0]) for each in inventory_of(root).duplicates or ()}
    assert found == {
        ("validation", "train"): (2, ("val/bee/copy-0.png", "train/ant/0.png")),
        ("test", "train"): (1, ("test/bee/copy-0.png", "train/ant/0.png")),
        ("test", "validation"): (1, ("test/bee/copy-0.png", "val/bee/copy-0.png")),
    }


def test_files_of_equal_size_and_equal_end_are_distinguished(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BMP files of one shape have one size; here they differ in their first pixels alone."""
    for number, file in enumerate(sorted(root.rglob("*.png"))):
        drawn = Image.new("RGB", (40, 40))
        drawn.putpixel((0, 39), (number, 0, 0))
        drawn.save(file.with_suffix(".bmp"))
        file.unlink()
    monkeypatch.setattr(tree, "QUICK_BYTES", 64)
    assert inventory_of(root).duplicates == ()
    shutil.copy(root / "train" / "cat" / "1.bmp", root / "test" / "cat" / "0.bmp")
    assert [(each.split, each.of, each.count) for each in inventory_of(root).duplicates or ()] == [("test", "train", 1)]


def test_copies_in_one_tree_are_found_across_what_is_held_out(write_tree: Writer) -> None:
    root = write_tree({"": CLASSES}, count=8, distinct=True)
    for file in sorted((root / "ant").iterdir()):
        shutil.copy(file, root / "ant" / f"copy-{file.name}")
    duplicates = inventory_of(root).duplicates
    assert duplicates
    assert all(one.removeprefix("ant/copy-") == other.removeprefix("ant/copy-") or "copy" in one + other
               for each in duplicates for one, other in each.examples)  # fmt: skip


def test_copies_of_arrays_are_found(write_npz: Writer) -> None:
    images = np.random.default_rng(5).integers(0, 256, (26, 5, 4, 3), dtype=np.uint8)
    images[22] = images[3]
    found = inventory_of(write_npz(train_images=images[:20], test_images=images[20:])).duplicates or ()
    assert [(each.split, each.count, each.examples) for each in found] == [
        ("test", 1, (("test_images[2]", "train_images[3]"),))
    ]
