"""torchvision's fine-grained data sets, from tiny files in each set's own layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from scipy.io import savemat
from torch import nn

from ralr_tune.kinds.classification import decoded
from ralr_tune.kinds.classification.sources import open_source
from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.models.registry import build

PICTURES = 6
"""Of each split, in two classes."""


def picture(file: Path, place: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(place).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, quality=95)


def aircraft(root: Path) -> None:
    base = root / "fgvc-aircraft-2013b" / "data"
    for start, split in enumerate(("train", "val", "test")):
        numbers = range(start * PICTURES, (start + 1) * PICTURES)
        for number in numbers:
            picture(base / "images" / f"{number:07d}.jpg", number)
        lines = [f"{number:07d} {'747-400' if number % 2 else 'DC-10'}\n" for number in numbers]
        (base / f"images_variant_{split}.txt").write_text("".join(lines))
    (base / "variants.txt").write_text("747-400\nDC-10\n")


def flowers(root: Path) -> None:
    base = root / "flowers-102"
    for number in range(1, 3 * PICTURES + 1):
        picture(base / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(base / "imagelabels.mat", {"labels": np.arange(3 * PICTURES) % 2 + 1})
    ids = np.arange(1, 3 * PICTURES + 1).reshape(3, PICTURES)
    savemat(base / "setid.mat", dict(zip(("trnid", "valid", "tstid"), ids, strict=True)))


def pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    for split in ("trainval", "test"):
        lines = []
        for number in range(PICTURES):
            name = f"{'Abyssinian' if number % 2 else 'boxer'}_{split}{number}"
            picture(base / "images" / f"{name}.jpg", number)
            lines.append(f"{name} {1 if number % 2 else 2} 1 1\n")
        (base / "annotations").mkdir(exist_ok=True)
        (base / "annotations" / f"{split}.txt").write_text("".join(lines))


def food(root: Path) -> None:
    base = root / "food-101"
    for split in ("train", "test"):
        table: dict[str, list[str]] = {"ramen": [], "tacos": []}
        for number in range(PICTURES):
            name = ("ramen", "tacos")[number % 2]
            table[name].append(f"{name}/{split}{number}")
            picture(base / "images" / name / f"{split}{number}.jpg", number)
        (base / "meta").mkdir(exist_ok=True)
        (base / "meta" / f"{split}.json").write_text(json.dumps(table))


def cars(root: Path) -> None:
    base = root / "stanford_cars"
    kind = np.dtype([("class", np.uint8), ("fname", "O")])
    (base / "devkit").mkdir(parents=True)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["Audi TT", "Fiat 500"], dtype=object)})
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        for number in range(PICTURES):
            picture(base / f"cars_{split}" / f"{number:05d}.jpg", number)
        rows = [(number % 2 + 1, f"{number:05d}.jpg") for number in range(PICTURES)]
        savemat(base / file, {"annotations": np.array(rows, dtype=kind)})


def network(classes: int, channels: int, size: int) -> nn.Module:
    return build("small_cnn", classes=classes, channels=channels, size=size)


SETS: dict[str, tuple[Callable[[Path], None], bool]] = {
    "FGVCAircraft": (aircraft, True),
    "Flowers102": (flowers, True),
    "OxfordIIITPet": (pets, False),
    "Food101": (food, False),
    "StanfordCars": (cars, False),
}
"""The writer of each set, and whether it has validation data of its own."""


@pytest.fixture(params=SETS)
def fine_grained(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    SETS[request.param][0](tmp_path / "data")
    # torchvision compares the MD5 of two files with those of the real ones
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_check_integrity", lambda self: True)
    return request.param, tmp_path / "data"


def test_every_set_has_its_splits_and_classes(fine_grained: tuple[str, Path]) -> None:
    name, root = fine_grained
    source = open_source({"source": "torchvision", "dataset": name, "root": str(root), "size": 8})
    own = [source.validation] if source.validation is not None else []
    assert (len(source.classes), bool(own)) == (102 if name == "Flowers102" else 2, SETS[name][1])
    for samples in (source.train, *own, source.test()):
        assert sorted(samples.labels) == [0] * 3 + [1] * 3
        assert samples.load().shape == (PICTURES, 3, 8, 8)


def test_without_validation_data_a_stratified_part_is_held_out(fine_grained: tuple[str, Path]) -> None:
    name, root = fine_grained
    source = open_source({"source": "torchvision", "dataset": name, "root": str(root), "size": 8})
    task = ClassificationTask(source, build=network, validation=1 / 3, seed=0, device="cpu", identity="fine-grained")
    assert (task.size("train"), task.size("validation")) == ((6, 6) if SETS[name][1] else (4, 2))
    held_out = next(task.batches("validation", seed=0, epoch=0, batch_size=6))
    assert held_out.labels.bincount().tolist() == [task.size("validation") // 2] * 2


def test_pictures_are_decoded_once_at_their_size(
    fine_grained: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, root = fine_grained
    monkeypatch.setattr(decoded, "MIN_BYTES", 1)

    def images(size: int) -> np.ndarray:
        source = open_source({"source": "torchvision", "dataset": name, "root": str(root), "size": size})
        parts = [source.train, source.test()]
        return np.concatenate([decoded.load([part], tmp_path / "cache") for part in parts])

    first = images(8)
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 2  # train and test, even if both have the same number of images
    with monkeypatch.context() as patched:
        patched.setattr("ralr_tune.kinds.classification.torchvision_sets._item", None)  # nothing is decoded again
        assert np.array_equal(images(8), first)
    images(7)
    assert len(list((tmp_path / "cache").iterdir())) == 4
