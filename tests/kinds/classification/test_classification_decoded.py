from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from ralr_tune.errors import DataError
from ralr_tune.images.files import Images
from ralr_tune.kinds.classification import decoded, torchvision_sets
from ralr_tune.kinds.classification.decoded import load
from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.kinds.classification.samples import Samples, all_samples
from ralr_tune.kinds.classification.section import ClassificationSection
from ralr_tune.kinds.classification.sources import open_source
from ralr_tune.tasks.base import Split

Writer = Callable[..., Path]

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 5), dtype=np.uint8)


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "MIN_BYTES", 1)


class Counted:
    """Samples, and how often they were read."""

    def __init__(self, images: Images = IMAGES, stamp: str | None = "as it was") -> None:
        self.reads = 0

        def read(rows: np.ndarray) -> Images:  # type: ignore[type-arg]
            self.reads += 1
            return images[rows]

        self.samples: Samples = all_samples(np.zeros(len(images)), read, stamp=stamp)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def is_mapped(images: Images) -> bool:
    return isinstance(images, np.memmap)


def test_images_are_decoded_once_and_mapped(tmp_path: Path) -> None:
    counted = Counted()
    for _ in range(3):
        images = load([counted.samples], tmp_path / "data")
        assert is_mapped(images)
        assert np.array_equal(images, IMAGES)
    assert counted.reads == 1
    assert len(files(tmp_path)) == 1


def test_writes_to_mapped_images_stay_private(tmp_path: Path) -> None:
    """torch warns about read-only arrays; these are writable, but no other process sees the writes."""
    samples = Counted().samples
    load([samples], tmp_path / "data")[:] = 0
    assert np.array_equal(load([samples], tmp_path / "data"), IMAGES)


@pytest.mark.parametrize(
    "other",
    [
        lambda samples: [Counted(stamp="changed").samples],
        lambda samples: [samples.take(np.arange(19))],
        lambda samples: [samples.take(np.arange(20)[::-1])],
        lambda samples: [samples, samples],
    ],
    ids=["stamp", "fewer", "order", "parts"],
)
def test_different_images_get_a_different_file(tmp_path: Path, other: Callable[[Samples], list[Samples]]) -> None:
    samples = Counted().samples
    load([samples], tmp_path / "data")
    parts = other(samples)
    assert np.array_equal(load(parts, tmp_path / "data"), np.concatenate([part.load() for part in parts]))
    assert len(files(tmp_path)) == 2


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def of_another_type(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([{"a": 1}]), allow_pickle=True)


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        of_another_type,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
    ],
    ids=["bit", "pickle", "empty", "short", "shorter"],
)
def test_a_damaged_file_is_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    counted = Counted()
    load([counted.samples], tmp_path / "data")
    path = tmp_path / "data" / files(tmp_path)[0]
    whole = path.read_bytes()
    damage(path)
    assert np.array_equal(load([counted.samples], tmp_path / "data"), IMAGES)
    assert "images are decoded again" in caplog.text
    assert (counted.reads, path.read_bytes()) == (2, whole)


def test_sources_without_a_stamp_are_not_cached(tmp_path: Path) -> None:
    for folder, stamp in ((tmp_path / "data", None), (None, "known")):
        images = load([Counted(stamp=stamp).samples], folder)
        assert not is_mapped(images)
        assert np.array_equal(images, IMAGES)
    assert files(tmp_path) == []


def test_small_data_are_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "MIN_BYTES", IMAGES.nbytes + 1)
    load([Counted().samples], tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_without_a_writable_folder_each_process_has_its_own_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").touch()
    with caplog.at_level("INFO"):
        assert np.array_equal(load([Counted().samples], tmp_path / "data"), IMAGES)
    assert "each worker keeps its own copy of the images in memory" in caplog.text
    assert np.array_equal(load([Counted().samples], tmp_path / "missing" / "data"), IMAGES)


def test_parts_of_different_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation images have shape \(3, 4, 4\), training images \(3, 4, 5\)"):
        load([Counted().samples, Counted(IMAGES[..., :4]).samples], tmp_path / "data")


CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from ralr_tune.kinds.classification import decoded
from ralr_tune.kinds.classification.samples import all_samples
decoded.MIN_BYTES = 1
def read(rows):
    print("read", flush=True)
    time.sleep(0.5)
    return np.zeros((len(rows), 1, 4, 4), np.uint8)
images = decoded.load([all_samples(np.zeros(9), read, stamp="x")], Path(sys.argv[1]) / "data")
assert isinstance(images, np.memmap)
"""


def test_only_one_of_several_starting_processes_decodes(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sorted(said) == ["", "", "read\n"]


# ---------------------------------------------------------------- stamps


def test_changed_arrays_have_another_stamp(write_npz: Writer) -> None:
    file = write_npz()
    source = open_source({"source": "arrays", "path": str(file)})
    again = open_source({"source": "arrays", "path": str(file)})
    assert source.train.stamp == again.train.stamp is not None
    assert source.train.stamp != source.test().stamp
    os.utime(file, ns=(0, 0))
    assert open_source({"source": "arrays", "path": str(file)}).train.stamp != source.train.stamp


def test_changed_pictures_have_another_stamp(write_tree: Writer) -> None:
    root = write_tree({"train": ["ant", "bee"], "test": ["ant", "bee"]})
    stamps = {open_source({"source": "folder", "path": str(root)} | size).train.stamp for size in ({}, {"size": 8})}
    os.utime(root / "train" / "bee" / "1.png", ns=(0, 0))
    stamps.add(open_source({"source": "folder", "path": str(root)}).train.stamp)
    assert len(stamps - {None}) == 3


def test_generated_data_have_no_stamp() -> None:
    assert open_source({"source": "digits"}).train.stamp is None


@pytest.mark.parametrize("held", [np.zeros((8, 2), np.uint8), torch.zeros(8, 2, dtype=torch.uint8)])
def test_torchvision_sets_in_memory_are_stamped_by_content(held: Any) -> None:
    first, changed = SimpleNamespace(data=held), SimpleNamespace(data=held + 1)
    stamps = {torchvision_sets._stamp(data, size) for data in (first, changed) for size in (None, 8)}
    assert len(stamps - {None}) == 4
    assert torchvision_sets._stamp(SimpleNamespace(data=["a.png"]), None) is None


# ---------------------------------------------------------------- a task with mapped images


def test_a_task_trains_the_same_on_mapped_images(tmp_path: Path, write_npz: Writer) -> None:
    (tmp_path / "out").mkdir()
    data = {"source": "arrays", "path": str(write_npz())}
    table = {"kind": "classification", "data": data, "model": "small_cnn", "validation": 0.3}
    section = ClassificationSection.model_validate(table)
    own, first, mapped = (
        KIND.load(section, metric=KIND.default_metric, seed=0, device="cpu", cache=folder)
        for folder in (None, tmp_path / "out" / "data", tmp_path / "out" / "data")
    )
    assert [name.partition("-")[0] for name in files(tmp_path / "out")] == ["images", "inventory"]
    for task in (first, mapped):
        for split in get_args(Split):
            pairs = zip(*(each.batches(split, seed=1, epoch=2, batch_size=4) for each in (own, task)), strict=True)
            assert all(torch.equal(one.images, other.images) for one, other in pairs)
