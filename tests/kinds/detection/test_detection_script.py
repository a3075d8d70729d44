"""The exported script trains what the task trains, without this package."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ralr_tune.kinds.detection.kind import KIND
from ralr_tune.kinds.detection.metrics import METRICS
from ralr_tune.report.export import render
from ralr_tune.studyfile.exported import Exported, exported_model
from ralr_tune.training.loop import TorchTrial
from tests.exports import SEED, tables

TRAINING = {
    "epochs": 2, "batch_size": 4, "lr": 0.01, "options": {"momentum": 0.9}, "clip_norm": 5.0, "ema_decay": 0.9,
    "weight_decay": 0.01, "weight_decay_schedule": "cosine",
    "augment": ["mosaic", "flip", "scale_jitter", "iou_crop", "colour"],
}  # fmt: skip


def configuration(data: dict[str, Any], **task: Any) -> Exported:
    task = {
        "kind": "detection",
        "data": data,
        "model": "small_fcos",
        "fpn_channels": 32,
        "head_convs": 1,
        "min_size": 48,
        "train_sizes": [40],
        **task,
    }
    given = tables(provenance={"metric": "map"}) | {"task": task, "training": TRAINING}
    return exported_model(KIND).model_validate(given, strict=False)


def test_the_script_trains_what_the_task_trains(
    write_voc: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_voc({"train": 12, "test": 4})
    exported = configuration({"source": "voc", "path": str(root), "classes": ["dog", "cat"]})
    text = render(exported, "python")
    assert "from ralr_tune" not in text
    file = tmp_path / "script.py"
    file.write_text(text)
    monkeypatch.setattr(sys, "argv", [str(file), "--device", "cpu"])
    runpy.run_path(str(file), run_name="__main__")
    weights = torch.load(tmp_path / "script.pt", weights_only=True)

    task = KIND.load(exported.task, metric=METRICS["map"], seed=exported.provenance.study_seed, device="cpu")
    trial = TorchTrial(task, exported.configuration(), seed=SEED, split="train+validation")
    list(trial.epochs())
    own = trial.state.judged.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in own.items())
    assert f"test mAP {trial.evaluate('test'):.4f}" in capsys.readouterr().out


def test_coco_data_and_every_key_of_the_detector_are_written() -> None:
    data = {"source": "coco", "path": "boxes", "box_format": "xyxy", "limit": 9}
    text = render(configuration(data, backbone="resnet34", pretrained=True), "python")
    assert "restrict(read_coco(path='boxes', box_format='xyxy'), classes=None, limit=9)".replace("'", '"') in text
    for given in ('backbone="resnet34"', "fpn_channels=32", "head_convs=1", "min_size=48", "train_sizes=(40,)"):
        assert given in text
    assert "pretrained=True," in text
