from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ralr_tune.training import checkpoint
from ralr_tune.training.files import replacing
from ralr_tune.training.start import start

Make = Callable[..., Any]


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a" / "b.pt", "me", {"weights": torch.ones(2), "curve": [{"epoch": 1}]})
    state = checkpoint.load(tmp_path / "a" / "b.pt", "me", device="cpu")
    assert state is not None
    assert torch.equal(state["weights"], torch.ones(2))
    assert state["curve"] == [{"epoch": 1}]


def test_nothing_is_no_mistake(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert checkpoint.load(tmp_path / "none.pt", "me", device="cpu") is None
    assert not caplog.text


def test_half_a_file_never_takes_the_place_of_a_whole_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("whole")
    with pytest.raises(ZeroDivisionError), replacing(file) as beside:
        1 / (beside.write_text("ha") - 2)
    assert file.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [file]


def write_damaged(file: Path, damage: str, good: bytes) -> None:
    if damage == "bomb":
        torch.save({"format": 1, "bomb": Bomb(file.with_name("trace"))}, file)
        return
    if damage == "other format":
        torch.save({"format": 0, "identity": "me"}, file)
        return
    contents = {
        "empty": b"",
        "garbage": b"garbage " * 1000,
        "truncated": good[: len(good) // 2],
        "almost whole": good[:-30],
        "pickled bomb": pickle.dumps(Bomb(file.with_name("trace"))),
        "json": b'{"identity": "me"}',
    }
    file.write_bytes(contents[damage])


@pytest.mark.parametrize(
    "damage", ["empty", "garbage", "truncated", "almost whole", "bomb", "pickled bomb", "json", "other format"]
)
def test_damaged_checkpoints_start_anew(
    make_images: Make,
    configure: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    damage: str,
) -> None:
    file = tmp_path / "trial.pt"
    next(start(make_images(), configure(), seed=0, checkpoint=file).epochs())
    write_damaged(file, damage, file.read_bytes())
    trial = start(make_images(), configure(), seed=0, checkpoint=file)
    assert trial.curve == []
    assert "starting anew" in caplog.text
    assert not (tmp_path / "trace").exists()
    assert not recwarn.list
    next(trial.epochs())
    assert len(start(make_images(), configure(), seed=0, checkpoint=file).curve) == 1


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("change", ["seed", "configuration", "split", "task"])
def test_foreign_checkpoints_start_anew(
    make_images: Make, configure: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    file = tmp_path / "trial.pt"
    task = make_images()
    next(start(task, configure(), seed=0, checkpoint=file).epochs())
    if change == "task":
        task.identity = "another"
    trial = start(
        task,
        configure(lr=0.2 if change == "configuration" else 0.1),
        seed=1 if change == "seed" else 0,
        split="train+validation" if change == "split" else "train",
        checkpoint=file,
    )
    assert trial.curve == []
    assert "belongs to another trial: starting anew" in caplog.text
