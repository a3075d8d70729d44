"""Exported scripts with what fine-tuning uses: they train exactly what `train` trains."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification.metrics import METRICS
from ralr_tune.machine.files import sha256_of
from ralr_tune.models import registry
from ralr_tune.report.export import render
from tests.exports import TABLES, check_trains_as_package, configuration, ran

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed (extra [timm])")

SIZE = 10


@pytest.fixture(autouse=True)
def _without_onednn() -> Iterator[None]:
    """oneDNN of torch 2.14.1 computes NaN for convolutions of one channel or group on some AVX-512 machines, by
    chance: the package's and the script's runs then differ. Both compute without it here."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


def images(folder: Path, channels: int = 3) -> dict[str, Any]:
    """[task.data]: 13 + 7 images of 10x10 pixels in three classes, in batches of 4, 4 and 5."""
    rng = np.random.default_rng(0)
    shape = (SIZE, SIZE, channels)
    arrays = {
        "train_images": rng.integers(0, 200, (13, *shape), dtype=np.uint8),
        "train_labels": np.arange(13) % 3,
        "test_images": rng.integers(0, 200, (7, *shape), dtype=np.uint8),
        "test_labels": np.arange(7) % 3,
    }
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return {"source": "arrays", "path": str(folder / "data.npz")}


def weights(folder: Path, model: str, size: int = SIZE, **options: Any) -> dict[str, Any]:
    """Keys of [task] for a network whose weights are in a file, with a head of other classes."""
    torch.manual_seed(3)
    network = registry.build(model, classes=5, channels=3, size=size, options=options)
    torch.save(network.state_dict(), folder / "mine.pt")
    return {"model": model, "model_options": options, "weights": str(folder / "mine.pt")}


CUT = {"train_size": 8, "test_size": 9, "model_options": {"width": 4}}
CASES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (CUT, {"optimizer": "muon", "head_factor": 3.0, "augment": ["flip", "crop", "cutmix"]}, "loss"),
    (CUT | {"train_size": SIZE}, {"augment": ["flip", "crop", "cutout"], "freeze_trunk": 1}, "balanced_accuracy"),
    (CUT, {"augment": ["flip", "resized_crop"], "options": {"momentum": 0.9}}, "accuracy"),
    (CUT, {"optimizer": "torch.optim:AdamW", "head_factor": 0.5}, "accuracy"),
]


def check(folder: Path, task: dict[str, Any], training: dict[str, Any], metric: str, **given: Any) -> None:
    provenance = TABLES["provenance"] | {"metric": metric, "files": given.pop("files", {})}
    training = {"epochs": 3, "batch_size": 4, "lr": 0.01, "compile": False, **training}
    made = configuration(
        task=task, training=training, provenance=provenance, amplify={"probability": 0.5, "width": 2.0}
    )
    check_trains_as_package(folder, made, **given)


@pytest.mark.parametrize(("task", "training", "metric"), CASES, ids=str)
def test_sizes_and_groups_train_as_in_the_package(
    tmp_path: Path, task: dict[str, Any], training: dict[str, Any], metric: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check(tmp_path, {"data": images(tmp_path), **task}, training, metric, capsys=capsys)


def test_a_frozen_trunk_from_a_file_trains_as_in_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"data": images(tmp_path), **weights(tmp_path, "small_cnn", width=4, dropout=0.3)}
    training = {
        "optimizer": "adamw", "weight_decay": 0.1, "weight_decay_schedule": "cosine", "clip_norm": 0.5,
        "ema_decay": 0.9, "head_factor": 5.0, "freeze_trunk": 2,
    }  # fmt: skip
    files = {"weights mine.pt": sha256_of(tmp_path / "mine.pt")}
    check(tmp_path, task, training, "accuracy", capsys=capsys, files=files)


def test_grey_images_are_normalised_and_filled_as_in_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the weights' normalisation, but the data's mean colour; the network of colour images is inside another."""
    task = {"data": images(tmp_path, channels=1), **weights(tmp_path, "torchvision:shufflenet_v2_x0_5")}
    check(tmp_path, task, {"augment": ["cutout"], "head_factor": 2.0}, "accuracy", capsys=capsys)


@needs_timm
def test_a_network_of_timm_trains_as_in_the_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = {"data": images(tmp_path), **weights(tmp_path, "timm:test_resnet"), "train_size": 8}
    check(tmp_path, task, {"freeze_trunk": 1, "head_factor": 4.0}, "accuracy", capsys=capsys)


@pytest.mark.parametrize("metric", METRICS)
def test_the_study_s_metric_is_tested(tmp_path: Path, metric: str, capsys: pytest.CaptureFixture[str]) -> None:
    task = {"data": {"source": "digits", "limit": 100}, "model": "tests.exports:Tiny"}
    check(tmp_path, task, {"epochs": 1, "batch_size": 64}, metric, capsys=capsys)


def test_other_weights_than_the_study_s_end_the_script_before_it_trains(tmp_path: Path) -> None:
    task = {"data": images(tmp_path), **weights(tmp_path, "small_cnn", width=4)}
    made = configuration(task=task, provenance={"files": {"weights mine.pt": "0" * 64}})
    with pytest.raises(
        SystemExit, match=r"mine.pt: not the file that the study read: its SHA-256 is \w{64}, not 0{64}"
    ):
        ran(tmp_path, render(made, "python"))
    (tmp_path / "mine.pt").unlink()
    with pytest.raises(SystemExit, match=r"mine.pt: cannot be read: No such file"):
        ran(tmp_path, render(made, "python"))


def test_images_that_are_too_small_end_the_script(tmp_path: Path) -> None:
    made = configuration(task={"data": images(tmp_path), "test_size": 11})
    with pytest.raises(Exception, match="test_size = 11: larger than the images, 10x10 pixels") as caught:
        ran(tmp_path, render(made, "python"))
    assert type(caught.value).__name__ == UsageError.__name__  # the script's own
