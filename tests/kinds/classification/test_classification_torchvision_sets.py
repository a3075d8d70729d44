from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.kinds.classification.samples import Source
from ralr_tune.kinds.classification.section import ClassificationSection
from ralr_tune.kinds.classification.sources import open_source
from ralr_tune.kinds.classification.torchvision_sets import can_fetch


class Toy(torchvision.datasets.VisionDataset):  # type: ignore[misc]
    """Eight grey pictures of 6x5 pixels in two classes, without splits; the first pixel is the row."""

    mode = "L"
    opened: list[str] = []

    def __init__(self, root: str, part: str = "all") -> None:
        super().__init__(root)
        self.opened.append(part)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return Image.new(self.mode, (6, 5), row if self.mode == "L" else (row, 0, 0)), row % 2


class ToyTrain(Toy):
    """Split by `train`, downloadable, with a list of labels and names."""

    classes = ("even", "odd")
    targets = [row % 2 for row in range(8)]

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        super().__init__(root, f"train={train} download={download}")
        if not (download or Path(root).exists()):
            raise RuntimeError("Dataset not found.")


class ToySplit(Toy):
    """Split by `split`, with unusual names."""

    mode = "RGB"
    _labels = np.array([row % 2 for row in range(8)])

    def __init__(self, root: str, split: str = "trainval") -> None:
        if split not in ("trainval", "valid"):
            raise ValueError(f"Unknown value {split!r} for argument split.")
        super().__init__(root, split)


class ToyVariant(Toy):
    """Like EMNIST: `split` is a variant; train and download are in **kwargs."""

    def __init__(self, root: str, split: str, **options: Any) -> None:
        if split != "letters":
            raise ValueError("Valid values are letters")
        super().__init__(root, f"{split} {options}")


class ToyBoxes(Toy):
    """Not for classification."""

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return super().__getitem__(row)[0], {"boxes": []}


class ToyLiar(Toy):
    """Its list of labels differs from the labels of its samples."""

    targets = [0] * 8


class ToyNoImage(ToyTrain):
    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return "text", 1


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for toy in (Toy, ToyTrain, ToySplit, ToyVariant, ToyBoxes, ToyLiar, ToyNoImage):
        monkeypatch.setattr(torchvision.datasets, toy.__name__, toy, raising=False)
    Toy.opened.clear()
    return Toy.opened


def opened(dataset: str, root: Path, **options: Any) -> Source:
    return open_source({"source": "torchvision", "dataset": dataset, "root": str(root), **options})


def write_mnist(root: Path, train: int = 30, test: int = 10) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, count) + labels.tobytes())


def test_mnist_from_its_own_files(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    source = opened("MNIST", tmp_path)
    images = source.train.load()
    assert images.shape == (30, 1, 28, 28)
    assert source.test().load().shape == (10, 1, 28, 28)
    assert source.classes[3] == "3 - three"
    written = (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()[16:]
    assert images.tobytes() == written


def test_splits_by_train(tmp_path: Path, toys: list[str]) -> None:
    source = opened("ToyTrain", tmp_path)
    assert toys == ["train=True download=False"]
    assert len(source.test()) == 8
    assert toys[1:] == ["train=False download=False"]
    assert source.classes == ("even", "odd")
    assert source.train.load()[:, 0, 0, 0].tolist() == list(range(8))


def test_the_first_known_split_name_is_used(tmp_path: Path, toys: list[str]) -> None:
    source = opened("ToySplit", tmp_path)
    assert source.train.load().shape == (8, 3, 5, 6)
    source.test()
    assert toys == ["trainval", "valid"]
    assert source.classes == ("0", "1")


def test_a_variant_is_named_after_a_colon(tmp_path: Path, toys: list[str]) -> None:
    opened("ToyVariant:letters", tmp_path).test()
    assert toys == ["letters {'train': True}", "letters {'train': False}"]
    with pytest.raises(DataError, match="Valid values are letters"):
        opened("ToyVariant", tmp_path)


def test_without_splits_a_fifth_is_set_aside(tmp_path: Path) -> None:
    source = opened("Toy", tmp_path)
    assert (len(source.train), len(source.test())) == (6, 2)
    assert source.train.load().shape == (6, 1, 5, 6)


def test_download_is_opt_in(tmp_path: Path, toys: list[str]) -> None:
    with pytest.raises(DataError, match=r"'ToyTrain' in data.root = .*not found.*data.download = true"):
        opened("ToyTrain", tmp_path / "new")
    opened("ToyTrain", tmp_path / "new", download=True)
    assert toys == ["train=True download=False", "train=True download=True"]


def test_size_is_applied(tmp_path: Path) -> None:
    assert opened("ToyTrain", tmp_path, size=4).train.load().shape == (8, 1, 4, 4)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("CIFAR11", "not a data set of torchvision; the nearest: CIFAR10"),
        ("cifar10", "not a data set of torchvision; the nearest: CIFAR10"),
        ("flowers102", "not a data set of torchvision; the nearest: Flowers102"),
        ("os", "not a data set of torchvision"),
        ("ToyBoxes", "sample 0 is not a readable image with one class"),
        ("ToyNoImage", "sample 0 is of type str; must be an image"),
        ("ToyLiar", "sample 1 has label 1, but the list of labels has 0"),
        ("CocoDetection", "missing 1 required positional argument: 'annFile'"),
        ("CIFAR10", r"data\.download = true downloads it"),
    ],
)
def test_wrong_data_sets_are_reported(tmp_path: Path, dataset: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(dataset, tmp_path).train.load()


def test_a_download_is_offered_and_tried_only_if_it_can_help(tmp_path: Path) -> None:
    fetched = {"CIFAR10", "MNIST", "EMNIST:letters", "QMNIST", "Flowers102", "OxfordIIITPet"}
    refused = {"StanfordCars", "FER2013", "ImageNet", "UCF101", "cifar10", "no such set"}
    assert {name for name in fetched | refused if can_fetch(name)} == fetched
    for name in ("StanfordCars", "FER2013"):
        with pytest.raises(DataError) as missing:
            open_source({"source": "torchvision", "dataset": name, "root": str(tmp_path)})
        assert "data.download" not in str(missing.value)
        with pytest.raises(DataError, match=r"data\.download = true: torchvision cannot download it"):
            open_source({"source": "torchvision", "dataset": name, "root": str(tmp_path), "download": True})


@pytest.mark.parametrize(("dataset", "helps"), [("CIFAR10", True), ("StanfordCars", False), ("cifar10", False)])
def test_doctor_offers_no_download_that_cannot_help(dataset: str, helps: bool) -> None:
    section = ClassificationSection(
        kind="classification", data={"source": "torchvision", "dataset": dataset, "download": True}, model="small_cnn"
    )
    assert KIND.downloads(section) == helps
