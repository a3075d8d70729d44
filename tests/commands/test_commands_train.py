from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ralr_tune.commands.train import Line, train_configuration
from ralr_tune.errors import Interrupted, StudyFileError, TrialError, UsageError
from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.kinds.simulated.trial import SimulatedTrial
from ralr_tune.report.export import render
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import registry
from ralr_tune.studyfile.code import digests
from ralr_tune.studyfile.exported import exported_model
from tests.exports import SEED, configuration, tables

SMALL = {"epochs": 3, "batch_size": 16, "options": {"momentum": 0.9}, "augment": ["crop"]}
AMPLIFY = {"probability": 0.9, "lower": 1.5, "width": 2.0}


def write(folder: Path, **changes: dict[str, Any]) -> Path:
    """A configuration over forty random 8x8 images."""
    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (40, 8, 8), dtype=np.uint8),
        "train_labels": np.arange(40) % 3,
        "test_images": rng.integers(0, 256, (9, 8, 8), dtype=np.uint8),
        "test_labels": np.arange(9) % 3,
    }
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    task = {"data": {"source": "arrays", "path": str(folder / "data.npz")}, "model_options": {"width": 4}}
    tables: dict[str, dict[str, Any]] = {"task": task, "training": SMALL, "amplify": AMPLIFY}
    made = configuration(**tables | changes)
    (folder / "ralr.toml").write_text(render(made, "toml"))
    return folder / "ralr.toml"


def train(config: Path, **options: Any) -> list[Line]:
    return list(train_configuration(config, **({"device": "cpu", "seed": None, "out": None} | options)))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = safetensors.torch.load_file(folder / "model.safetensors")
    return loaded


def test_weights_and_score_are_next_to_the_configuration(tmp_path: Path) -> None:
    lines = train(write(tmp_path))
    out = tmp_path / "ralr"
    assert sorted(path.name for path in out.iterdir()) == ["model.safetensors", "score.json"]
    score = json.loads((out / "score.json").read_text())
    assert (score["metric"], score["split"], score["trained_on"]) == ("accuracy", "test", "train+validation")
    assert (score["seed"], score["epochs"]) == (SEED, 3)
    assert score["value"] in [n / 9 for n in range(10)]
    assert score["provenance"]["trial"] == 17
    assert score["versions"]["torch"] == torch.__version__.split("+")[0]
    assert score["seconds"] > 0
    assert [line.final for line in lines] == [False] * 4 + [True]
    assert f"test accuracy {100 * score['value']:.2f}% (seed {SEED})" in lines[-1].text
    assert str(out / "score.json") in lines[-1].text


def test_an_epoch_has_a_rate_and_no_score(tmp_path: Path) -> None:
    lines = [line.text for line in train(write(tmp_path))[1:4]]
    learning_rate = (
        configuration(training=SMALL, amplify=AMPLIFY)
        .configuration()
        .learning_rate(1, seed=derive_seed("amplify", SEED))
    )
    for epoch, (line, rate) in enumerate(zip(lines, learning_rate.trace()[:, 0], strict=True)):
        assert line.startswith(f"epoch {epoch + 1}/3: loss ")
        assert f"learning rate {rate:.4g}," in line
        assert "accuracy" not in line


def test_validation_images_are_trained_on_and_test_images_read_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    batches, evaluate = ClassificationTask.batches, ClassificationTask.evaluate

    def spied_batches(self: Any, split: str, **options: Any) -> Any:
        seen.append(("train", split))
        return batches(self, split, **options)  # type: ignore[arg-type]

    def spied_evaluate(self: Any, model: Any, split: str, **options: Any) -> float:
        seen.append(("evaluate", split))
        return evaluate(self, model, split, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ClassificationTask, "batches", spied_batches)
    monkeypatch.setattr(ClassificationTask, "evaluate", spied_evaluate)
    train(write(tmp_path))
    assert {split for what, split in seen if what == "train"} == {"train+validation"}
    assert [split for what, split in seen if what == "evaluate"].count("test") == 1
    assert seen[-1] == ("evaluate", "test")
    assert ("evaluate", "validation") not in seen


def test_seed_and_folder_can_be_chosen(tmp_path: Path) -> None:
    config = write(tmp_path)
    for seed, name in ((None, "a"), (SEED, "b"), (8, "c")):
        train(config, seed=seed, out=tmp_path / name)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)
    assert json.loads((tmp_path / "c" / "score.json").read_text())["seed"] == 8
    assert not (tmp_path / "ralr").exists()


def test_resuming_after_an_interruption_gives_the_same_weights(tmp_path: Path) -> None:
    config = write(tmp_path)
    train(config, out=tmp_path / "whole")
    broken_off = train_configuration(config, device="cpu", seed=None, out=tmp_path / "parts")
    for line in broken_off:
        if line.text.startswith("epoch 2"):
            break
    broken_off.close()  # type: ignore[attr-defined]
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["checkpoint.pt"]
    lines = train(config, out=tmp_path / "parts")
    assert "(2 already done)" in lines[0].text
    assert [line.text.split(":")[0] for line in lines[1:-1]] == ["epoch 3/3"]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert not (tmp_path / "parts" / "checkpoint.pt").exists()


def test_ctrl_c_is_an_interruption_that_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Any, *_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    running = train_configuration(write(tmp_path), device="cpu", seed=None, out=None)
    next(running)
    next(running)
    monkeypatch.setattr(ClassificationTask, "batches", interrupted)
    with pytest.raises(Interrupted, match="interrupted after epoch 1; run the same command again to resume"):
        next(running)


def simulated(folder: Path, **training: Any) -> Path:
    given = tables(training={"epochs": 2, **training}) | {"task": {"kind": "simulated"}}
    made = exported_model(registry.find("simulated")).model_validate(given, strict=False)
    (folder / "ralr.toml").write_text(render(made, "toml"))
    return folder / "ralr.toml"


def test_a_rate_that_is_too_large_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="learning rate 50 in epoch 1") as caught:
        train(simulated(tmp_path, lr=50.0))
    assert caught.value.kind == "diverged"
    assert list((tmp_path / "ralr").iterdir()) == []


def test_outputs_that_are_not_finite_give_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedTrial, "evaluate", lambda self, split: math.nan)
    with pytest.raises(TrialError, match="not finite"):
        train(simulated(tmp_path))
    assert not (tmp_path / "ralr" / "score.json").exists()


def test_a_simulated_configuration_runs_the_same_way(tmp_path: Path) -> None:
    lines = train(simulated(tmp_path))
    assert [line.final for line in lines] == [False, False, False, True]
    assert 0 < json.loads((tmp_path / "ralr" / "score.json").read_text())["value"] < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "--seed -1: allowed: 0 to"),
        ({"seed": 2**48}, "allowed: 0 to"),
        ({"device": "tpu"}, "'tpu' is not a device"),
        ({"device": "cuda:99"}, "cuda:99 is not available: torch sees"),
    ],
)
def test_impossible_options_end_before_anything_starts(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    config = write(tmp_path)
    with pytest.raises(UsageError, match=message):
        train(config, **options)
    assert not (tmp_path / "ralr").exists()


def test_changed_code_is_refused_unless_its_line_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "net_of_train.py"
    module.write_text("from tests.exports import Tiny as Net\n")
    files = {"module net_of_train": digests(module.read_bytes()), "weights of_another_arm.pt": ("0f",)}
    task = {"data": {"source": "arrays", "path": str(tmp_path / "data.npz")}, "model": "net_of_train:Net"}
    provenance: dict[str, Any] = {"files": files}
    config = write(tmp_path, task=task, provenance=provenance)
    module.write_text("# a comment\nfrom tests.exports import Tiny as Net\n")
    assert train(config)[-1].final
    module.write_text("from tests.exports import Tiny as Net\nx = 1\n")
    with pytest.raises(
        UsageError, match=r"ralr\.toml: provenance\.files: module net_of_train changed since .* delete its"
    ):
        train(config)
    write(tmp_path, task=task, provenance={"files": {"weights of_another_arm.pt": "0f"}})
    assert train(config)[-1].final


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    config = write(tmp_path)
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UsageError, match="data: cannot be created"):
        train(config, out=tmp_path / "data")
    bare = config.rename(tmp_path / "bare")
    with pytest.raises(UsageError, match="the file name has no suffix to remove"):
        train(bare)


def test_a_file_that_is_not_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="no such file"):
        train(tmp_path / "none.toml")
    (tmp_path / "study.toml").write_text("[study]\nname = 'digits'\n")
    with pytest.raises(StudyFileError, match=r"is a study file; `.* -m ralr_tune run \S+study.toml` searches it"):
        train(tmp_path / "study.toml")
    (tmp_path / "part.toml").write_text("[task]\nkind = 'simulated'\n")
    with pytest.raises(StudyFileError, match="provenance is missing"):
        train(tmp_path / "part.toml")
