from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification import sources
from ralr_tune.kinds.classification.section import ClassificationSection
from ralr_tune.kinds.classification.sources import _digits_table, open_source


def test_digits() -> None:
    source = open_source({"source": "digits"})
    images = source.train.load()
    assert images.shape == (1438, 1, 8, 8)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert len(source.test()) == 359
    assert source.classes == tuple("0123456789")
    assert np.abs(np.bincount(source.test().labels) - np.bincount(source.train.labels) / 4).max() < 1
    assert set(source.test().rows).isdisjoint(source.train.rows)


def test_the_test_split_of_digits_never_changes() -> None:
    rows = open_source({"source": "digits"}).test().rows.astype("<i8").tobytes()
    assert hashlib.sha256(rows).hexdigest()[:16] == "46871fd9a6250216"


def test_classes_are_kept_in_the_order_given() -> None:
    whole, some = open_source({"source": "digits"}), open_source({"source": "digits", "classes": [7, "3"]})
    assert some.classes == ("7", "3")
    sevens = whole.train.take(np.flatnonzero(whole.train.labels == 7)).load()
    assert np.array_equal(some.train.take(np.flatnonzero(some.train.labels == 0)).load(), sevens)
    assert len(some.test()) == np.isin(whole.test().labels, [3, 7]).sum()


def test_limit_takes_a_stratified_subset_of_train_only() -> None:
    whole, some = open_source({"source": "digits"}), open_source({"source": "digits", "limit": 100})
    assert np.bincount(some.train.labels).tolist() == [10] * 10
    assert set(some.train.rows) < set(whole.train.rows)
    assert np.array_equal(some.test().rows, whole.test().rows)
    again = open_source({"source": "digits", "limit": 100})
    assert np.array_equal(some.train.rows, again.train.rows)


def test_limit_above_the_size_keeps_all() -> None:
    assert len(open_source({"source": "digits", "limit": 10**6}).train) == 1438


def test_options_of_none_are_ignored() -> None:
    assert len(open_source({"source": "digits", "limit": None, "classes": None}).train) == 1438


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "digitz"}, "data.source = 'digitz': allowed: digits, torchvision, folder, arrays"),
        ({}, "data.source = None"),
        ({"source": "digits", "size": 8}, "data.size: not an option of source 'digits'; allowed: limit, classes"),
        ({"source": "folder"}, "data.path: missing; source 'folder' needs it"),
        ({"source": "digits", "limit": 0}, "data.limit = 0: must be an integer, at least 1"),
        ({"source": "digits", "limit": 5}, "data.limit = 5: must be at least the number of classes, 10"),
        (
            {"source": "digits", "classes": ["3", "ten"]},
            "data.classes: 'ten' is not a class of the data; allowed: 0 to 9",
        ),
        ({"source": "digits", "classes": [3, 10]}, "data.classes: 10 is not a class"),
        ({"source": "digits", "classes": [3, "3"]}, "two or more different classes"),
        ({"source": "digits", "classes": [3]}, "two or more different classes"),
    ],
)
def test_wrong_options_are_reported(data: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(data)


def test_digits_equal_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    read = _digits_table()
    monkeypatch.setattr(sources, "find_spec", lambda name: None)  # as if its file were elsewhere
    assert np.array_equal(read, _digits_table())


def test_digits_are_read_without_importing_scikit_learn() -> None:
    code = """
import sys
from ralr_tune.kinds.classification.sources import open_source
open_source({"source": "digits"}).train.load()
print([name for name in sys.modules if name.partition(".")[0] in ("sklearn", "scipy")])
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


@pytest.mark.parametrize(
    ("data", "key", "value"),
    [
        ({"source": "folder", "path": "x"}, "max_pixels", 10**9 - 1),
        ({"source": "torchvision", "dataset": "MNIST"}, "max_pixels", 1000),
        ({"source": "arrays", "path": "x"}, "layout", "NCHW"),
    ],
)
def test_keys_that_earlier_releases_did_not_know_change_no_identity_unless_given(
    data: dict[str, Any], key: str, value: Any
) -> None:
    """Fingerprints and checkpoints of unchanged study files stay what they were."""
    table = {"kind": "classification", "model": "small_cnn"}
    plain = ClassificationSection.model_validate(table | {"data": data}).model_dump()["data"]
    assert key not in plain
    assert "limit" in plain
    assert (
        ClassificationSection.model_validate(table | {"data": data | {key: value}}).model_dump()["data"][key] == value
    )
