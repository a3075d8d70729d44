from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.errors import DataError, DiskError, TrialError
from ralr_tune.kinds.simulated.kind import KIND
from ralr_tune.kinds.simulated.metrics import METRICS
from ralr_tune.kinds.simulated.section import SimulatedData
from ralr_tune.kinds.simulated.task import SimulatedTask
from ralr_tune.records import EpochRecord
from ralr_tune.tasks.trial import Trial

Make = Callable[..., Any]

AMPLIFY = {"probability": 0.5, "lower": 2.0, "width": 2.0}


def task(**data: float) -> SimulatedTask:
    return SimulatedTask(**dict(SimulatedData.model_validate(data)), identity="simulated")


def run(trial: Trial) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in trial.epochs()]


def test_records_have_the_fields_of_a_trial(configure: Make) -> None:
    configuration = configure(amplify=AMPLIFY, schedule={"name": "cosine"})
    trial = KIND.trial(task(), configuration, seed=0)
    curve = run(trial)
    assert [record.epoch for record in curve] == [1, 2, 3, 4]
    assert [record.value for record in curve] == [
        task().point(configuration, seed=0, epochs=epochs) for epochs in (1, 2, 3, 4)
    ]
    assert {record.factor == 1.0 for record in curve} == {True, False}
    assert trial.evaluate("validation") == curve[-1].value
    assert trial.train_value() > trial.evaluate("validation")


def test_the_error_is_exactly_the_negative_of_the_value(configure: Make) -> None:
    configuration = configure(amplify=AMPLIFY, schedule={"name": "cosine"})
    value, error = (
        KIND.trial(SimulatedTask(identity="simulated", metric=METRICS[name]), configuration, seed=0)
        for name in ("value", "error")
    )
    assert run(error) == [replace(record, value=-record.value) for record in run(value)]
    assert error.train_value() == -value.train_value()
    assert error.evaluate("test") == -value.evaluate("test")
    assert METRICS["error"].worst == METRICS["value"].worst == 0.0


def test_resumed_equals_uninterrupted(configure: Make, tmp_path: Path) -> None:
    configuration = configure(amplify=AMPLIFY)
    whole = run(KIND.trial(task(), configuration, seed=1))
    for _ in range(4):
        pieces = KIND.trial(task(), configuration, seed=1, checkpoint=tmp_path / "trial.json")
        next(pieces.epochs())
    assert [replace(record, seconds=0.0) for record in pieces.curve] == whole
    assert list(pieces.epochs()) == []


@pytest.mark.parametrize("content", ["", "garbage", "[]", '{"curve": 3}', '{"identity": "x", "curve": [{"epoch": 1}]}'])
def test_damaged_checkpoints_restart_the_trial(
    configure: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (tmp_path / "trial.json").write_text(content)
    assert KIND.trial(task(), configure(), seed=0, checkpoint=tmp_path / "trial.json").curve == []
    assert "starting with the first epoch" in caplog.text


def test_foreign_checkpoints_restart_the_trial(
    configure: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(KIND.trial(task(), configure(), seed=0, checkpoint=tmp_path / "trial.json"))
    assert KIND.trial(task(), configure(), seed=1, checkpoint=tmp_path / "trial.json").curve == []
    assert "belongs to another trial" in caplog.text


def test_an_earlier_attempts_checkpoint_is_resumed_and_kept(configure: Make, tmp_path: Path) -> None:
    whole = run(KIND.trial(task(), configure(), seed=1))
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    next(KIND.trial(task(), configure(), seed=1, checkpoint=first).epochs())
    before = first.read_bytes()
    trial = KIND.trial(task(), configure(), seed=1, checkpoint=second, earlier=[first])
    assert len(trial.curve) == 1
    run(trial)
    assert [replace(record, seconds=0.0) for record in trial.curve] == whole
    assert first.read_bytes() == before
    assert len(KIND.trial(task(), configure(), seed=1, checkpoint=second).curve) == 4
    assert trial.recovered is None


def test_one_changed_digit_is_noticed(configure: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(KIND.trial(task(), configure(), seed=0, checkpoint=tmp_path / "trial.json"))
    good = (tmp_path / "trial.json").read_bytes()
    place = good.rindex(b"0.1") + 2
    (tmp_path / "trial.json").write_bytes(good[:place] + b"2" + good[place + 1 :])
    assert KIND.trial(task(), configure(), seed=0, checkpoint=tmp_path / "trial.json").curve == []
    assert "damaged" in caplog.text


def test_an_unwritable_disk(configure: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    trial = KIND.trial(task(), configure(), seed=0, checkpoint=tmp_path / "file" / "trial.json")
    with pytest.raises(DiskError, match=r"trial\.json: cannot be written"):
        next(trial.epochs())
    assert trial.curve == []
    with pytest.raises(DiskError, match="weights: cannot be written"):
        trial.save_weights(tmp_path / "file" / "weights")


def test_divergence_ends_the_trial_in_its_epoch(configure: Make, tmp_path: Path) -> None:
    configuration = configure(lr=2.0, amplify=AMPLIFY, epochs=20)
    trial = KIND.trial(task(diverges_above=3.0), configuration, seed=0, checkpoint=tmp_path / "trial.json")
    with pytest.raises(TrialError, match="diverges above 3") as caught:
        run(trial)
    assert caught.value.kind == "diverged"
    assert all(record.lr <= 3.0 for record in trial.curve)
    assert len(trial.curve) < 20


def test_epochs_take_the_configured_time(configure: Make) -> None:
    began = time.perf_counter()
    record = next(KIND.trial(task(seconds_per_epoch=0.05), configure(), seed=0).epochs())
    assert 0.05 <= record.seconds <= time.perf_counter() - began


def test_weights_can_be_saved_and_loaded(configure: Make, tmp_path: Path) -> None:
    trained = KIND.trial(task(), configure(), seed=0)
    run(trained)
    trained.save_weights(tmp_path / "weights")
    assert json.loads((tmp_path / "weights").read_text())["simulated"] is True
    fresh = KIND.trial(task(), configure(), seed=0)
    assert fresh.evaluate("test") != trained.evaluate("test")
    fresh.load_weights(tmp_path / "weights")
    assert fresh.evaluate("test") == trained.evaluate("test")


@pytest.mark.parametrize(
    "content",
    [
        "", "garbage", "3", "[]", "{}", '{"epochs": 2}', '{"simulated": true, "epochs": 2, "check": 3}', "[" * 900,
        '{"epochs": []}', '{"epochs": -1}', " " * 2000, None,
    ],
)  # fmt: skip
def test_wrong_weights_are_reported(configure: Make, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "weights").write_text(content)
    with pytest.raises(DataError, match="not the weights of a simulated trial"):
        KIND.trial(task(), configure(), seed=0).load_weights(tmp_path / "weights")


def test_one_changed_number_of_epochs_is_noticed(configure: Make, tmp_path: Path) -> None:
    trained = KIND.trial(task(), configure(), seed=0)
    run(trained)
    trained.save_weights(tmp_path / "weights")
    text = (tmp_path / "weights").read_text()
    (tmp_path / "weights").write_text(text.replace('"epochs": 4', '"epochs": 3'))
    with pytest.raises(DataError, match="damaged, or from a longer trial"):
        KIND.trial(task(), configure(), seed=0).load_weights(tmp_path / "weights")
    (tmp_path / "weights").write_text(text)
    with pytest.raises(DataError, match="damaged, or from a longer trial"):
        KIND.trial(task(), configure(epochs=3), seed=0).load_weights(tmp_path / "weights")
