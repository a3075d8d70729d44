"""The exported script trains what the task trains, without this package."""

from __future__ import annotations

import runpy
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from ralr_tune.kinds.translation.kind import KIND
from ralr_tune.kinds.translation.metrics import METRICS
from ralr_tune.report.export import render
from ralr_tune.studyfile.exported import Exported, exported_model
from tests import exports
from tests.kinds.translation.conftest import MakeText, tables

TRAINING = {"epochs": 2, "batch_size": 120, "lr": 0.01, "optimizer": "adam", "label_smoothing": 0.1}
SCHEDULE = {"name": "inverse_sqrt", "warmup": 0.25, "granularity": "step"}
RALR = {"probability": 0.5, "lower": 1.5, "width": 2.0, "granularity": "step"}


def configuration(task: dict[str, Any], amplify: dict[str, Any] | None = None, **training: Any) -> Exported:
    given = exports.tables(provenance={"metric": "bleu"}, schedule=SCHEDULE)
    given |= {"task": task, "training": TRAINING | training} | ({"amplify": amplify} if amplify else {})
    return exported_model(KIND).model_validate(given, strict=False)


@pytest.mark.parametrize(
    ("model", "accumulate", "training"),
    [
        ("transformer_tiny", 3, {"ema_decay": 0.9, "clip_norm": 1.0, "precision": "bfloat16"}),
        ("lstm", 1, {"weight_decay": 0.01, "weight_decay_end": 0.1, "precision": "auto"}),
    ],
)
def test_the_script_trains_what_the_task_trains(
    make_text: MakeText,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: str,
    accumulate: int,
    training: dict[str, Any],
) -> None:
    task = tables(make_text())["task"] | {"model": model, "dropout": 0.2, "accumulate": accumulate}
    exported = configuration(task | {"data": task["data"] | {"limit": 50}}, RALR, **training)
    text = render(exported, "python")
    assert "from ralr_tune" not in text
    assert "pydantic" not in text
    file = tmp_path / "script.py"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(file), "--device", "cpu"])
    runpy.run_path(str(file), run_name="__main__")
    weights = torch.load(tmp_path / "script.pt", weights_only=True)

    own = KIND.load(exported.task, metric=METRICS["bleu"], seed=exported.provenance.study_seed, device="cpu")
    trial = KIND.trial_in_stage(
        own, exported.configuration(), stage="confirm", seed=exports.SEED, split="train+validation"
    )
    list(trial.epochs())
    judged = trial.state.judged.state_dict()
    assert weights.keys() == judged.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in judged.items())
    outputs = trial.in_batches("test", trial._translations)
    scores = own.scores("test", outputs)
    assert scores["chrf"] > 0
    assert f"test BLEU {scores['bleu']:.4f}, chrF {scores['chrf']:.4f}" in capsys.readouterr().out
    lines = (tmp_path / "script.txt").read_text(encoding="utf-8").split("\n")
    assert lines == [*(outputs or ()), ""]


def test_all_layouts_and_an_existing_vocabulary_are_written(tmp_path: Path) -> None:
    columns = {"train": ["a.tsv"], "validation": "b.tsv", "test": "c.tsv", "columns": [3, 2], "header": True}
    for data in ({"source": "folder", "unicode": "nfkc", "limit": 9}, {"source": "tsv", "max_length": 80} | columns):
        task = {"kind": "translation", "languages": ["xx", "yy"], "vocabulary": {"model": "own.model"}}
        exported = configuration(task | {"data": data | {"path": "text"}})
        file = tmp_path / "script.py"
        file.write_text(render(exported, "python"), encoding="utf-8")
        assert 'study_seed=STUDY_SEED, model="own.model")' in file.read_text(encoding="utf-8")
        written = runpy.run_path(str(file))["open_source"]()
        expected = exported.task.data.model_dump(exclude={"source"})
        assert (type(written).__name__, asdict(written)) == (type(exported.task.data).__name__, expected)
