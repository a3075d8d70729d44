from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.samples import Source
from ralr_tune.kinds.classification.sources import open_source

Writer = Callable[..., Path]


def opened(file: Path, **options: Any) -> Source:
    return open_source({"source": "arrays", "path": str(file), **options})


def test_colour_images_are_read_channels_first(write_npz: Writer) -> None:
    file = write_npz()
    source = opened(file)
    with np.load(file) as written:
        assert np.array_equal(source.train.load(), written["train_images"].transpose(0, 3, 1, 2))
        assert np.array_equal(source.test().load(), written["test_images"].transpose(0, 3, 1, 2))
        assert np.array_equal(source.train.labels, written["train_labels"])
    assert source.classes == ("ant", "bee", "cat")


def test_grey_images_have_one_channel(write_npz: Writer) -> None:
    grey = np.arange(20 * 5 * 4, dtype=np.uint8).reshape(20, 5, 4)
    source = opened(write_npz(train_images=grey))
    assert np.array_equal(source.train.load(), grey[:, None])


def test_without_classes_the_numbers_are_the_names(write_npz: Writer) -> None:
    assert opened(write_npz(classes=None)).classes == ("0", "1", "2")


def test_names_as_bytes_are_names(write_npz: Writer) -> None:
    assert opened(write_npz(classes=np.array([b"ant", b"bee", b"cat"]))).classes == ("ant", "bee", "cat")


def test_classes_can_be_chosen_by_name(write_npz: Writer) -> None:
    source = opened(write_npz(), classes=["cat", "ant"])
    assert (len(source.train), len(source.test())) == (13, 4)


@pytest.mark.parametrize("labels", [np.array([1, 2, 4]), np.array([10, 20, 30]), np.array([0, 1, 7])])
def test_the_numbers_that_occur_are_the_classes(write_npz: Writer, labels: np.ndarray[Any, Any]) -> None:
    source = opened(
        write_npz(classes=None, train_labels=labels[np.arange(20) % 3], test_labels=labels[np.arange(6) % 3])
    )
    assert source.classes == tuple(map(str, labels))
    assert source.train.labels.tolist() == (np.arange(20) % 3).tolist()
    assert source.test().labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_labels_may_stand_in_a_column(write_npz: Writer) -> None:
    column = (np.arange(20) % 3).astype(np.uint8)[:, None]
    assert opened(write_npz(train_labels=column)).train.labels.tolist() == column[:, 0].tolist()


@pytest.mark.parametrize("name", ["val", "Valid", "validation", "dev"])
def test_validation_arrays_are_used(write_npz: Writer, name: str) -> None:
    own = {f"{name}_images": np.full((4, 5, 4, 3), 7, np.uint8), f"{name}_labels": np.array([0, 1, 2, 2])}
    source = opened(write_npz(**own))
    assert source.validation is not None
    assert source.validation.labels.tolist() == [0, 1, 2, 2]
    assert (source.validation.load() == 7).all()


def test_arrays_that_are_not_read_are_named(write_npz: Writer) -> None:
    source = opened(write_npz(extra_images=np.zeros(3), names=np.zeros(2)))
    assert {each.what for each in source.skipped} == {"extra_images", "names"}


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (3, 16, 16), (3, 12, 9), (4, 5, 5)])
def test_clearly_channels_first_is_refused(write_npz: Writer, shape: tuple[int, int, int]) -> None:
    train, test = (np.zeros((count, *shape), np.uint8) for count in (20, 6))
    file = write_npz(train_images=train, test_images=test)
    with pytest.raises(DataError, match=r'channels last.*data\.layout = "NCHW" reads channels first'):
        opened(file).train.load()
    assert opened(file, layout="NCHW").train.load().shape == (20, *shape)
    assert opened(file, layout="NHWC").train.load().shape == (20, shape[2], *shape[:2])


@pytest.mark.parametrize("shape", [(3, 5, 3), (4, 3, 3), (3, 3, 3), (1, 20, 3), (32, 32, 3), (8, 8, 1), (8, 8, 12)])
def test_channels_last_is_read_as_such(write_npz: Writer, shape: tuple[int, int, int]) -> None:
    assert opened(write_npz(train_images=np.zeros((20, *shape), np.uint8))).train.load().shape[1] == shape[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": np.zeros(20, int), "classes": None}, "has one class, 0; must be two or more"),
        ({"train_labels": np.zeros(20, int)}, "no images for the classes bee, cat"),
        ({"train_labels": np.arange(20) % 3 + 1}, "train_labels go from 1 to 3; allowed: 0 to 2"),
        ({"val_images": np.zeros((2, 5, 4, 3), np.uint8)}, "val_labels missing"),
        ({"dev_labels": np.zeros(2, int), "val_labels": np.zeros(2, int)}, "name the same split"),
        ({"test_labels": None}, "test_labels missing; it contains classes, test_images, train_images, train_labels"),
        ({"train_labels": np.arange(20) / 2}, r"train_labels is float64 \(20,\); must be integers"),
        ({"train_labels": np.zeros((20, 2), int)}, r"train_labels is int64 \(20, 2\); must be integers \(N,\)"),
        ({"train_labels": np.arange(20)}, "train_labels go from 0 to 19; allowed: 0 to 2"),
        ({"train_labels": np.arange(20) % 3 - 1}, "train_labels go from -1 to 1"),
        ({"classes": np.array([1, 2, 3])}, r"classes is int64 \(3,\); must be strings"),
        (
            {"classes": np.array(["a", "b", "c"], dtype=object)},
            r"classes is object \(3,\); must be strings \(K,\)",
        ),
    ],
)
def test_wrong_labels_are_reported_on_opening(write_npz: Writer, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(write_npz(**changes))


def test_test_labels_that_do_not_occur_in_train_are_refused(write_npz: Writer) -> None:
    source = opened(write_npz(classes=None, train_labels=np.arange(20) % 3 * 2, test_labels=np.arange(6)))
    with pytest.raises(DataError, match="test_labels contain 1, 3, 5; allowed: labels that occur in train"):
        source.test()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((20, 5, 4, 3), np.float32), r"train_images is float32 \(20, 5, 4, 3\); must be uint8"),
        (np.zeros((20, 5), np.uint8), r"must be uint8 \(N, H, W\) or \(N, H, W, C\)"),
        (np.zeros((19, 5, 4, 3), np.uint8), "N = 20 as in the labels"),
        (np.zeros((20, 3, 32, 32), np.uint8), "channels last, 1 <= C <= 16"),
    ],
)
def test_wrong_images_are_reported(write_npz: Writer, images: np.ndarray[Any, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(write_npz(train_images=images)).train.load()


@pytest.mark.parametrize("content", [None, b"", b"nonsense", pickle.dumps([1, 2])])
def test_files_that_are_not_npz_are_reported(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "data.npz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match="no such file" if content is None else "not an .npz file"):
        opened(file)


def test_a_single_array_is_not_a_data_set(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"not an \.npz file"):
        opened(tmp_path / "data.npy")


def test_test_arrays_are_read_on_first_request(write_npz: Writer) -> None:
    poison = np.array(["not", "an", "image"], dtype=object)
    source = opened(write_npz(test_images=poison))
    assert source.train.load().shape == (20, 3, 5, 4)
    with pytest.raises(DataError, match=r"test_images is object \(3,\); must be uint8"):
        source.test().load()
