"""A function of one's own without a study: the same code, parameters from its defaults or the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ralr_tune
from ralr_tune.own.alone import trial


@pytest.fixture(autouse=True)
def no_study(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RALR_TUNE_TRIAL", "RALR_TUNE_SOCKET"):
        monkeypatch.delenv(name, raising=False)


def trained(one: ralr_tune.Trial) -> list[float]:
    rates = []
    for epoch in one.epochs():
        rates.append(one.rate(epoch))
        one.report(epoch / 10, loss=1.0, metrics={"f1": 0.5})
    return rates


def test_defaults_and_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    one = trial(epochs=3, lr=0.5, width=8, name="a", deep=False, arguments=["--width", "16", "--deep", "--seed", "4"])
    assert dict(one.params) == {
        "lr": 0.5,
        "width": 16,
        "name": "a",
        "deep": True,
        "batch_size": 1,
        "optimizer": "sgd",
        "weight_decay": 0.0,
    }
    assert (one.seed, one.stage, one.max_epochs, one.first_epoch) == (4, "train", 3, 1)
    assert trained(one) == [0.5, 0.5, 0.5]
    assert capsys.readouterr().out.splitlines()[0] == "epoch 1/3: value 0.1, loss 1, f1 0.5"


def test_schedule_and_amplification() -> None:
    given = ["--schedule", "linear", "--probability", "1", "--lower", "2", "--upper", "2"]
    assert trained(trial(epochs=2, lr=0.5, arguments=given)) == [1.0, 0.5]
    assert trained(trial(epochs=1, lr=0.5, amplify={"probability": 1.0, "lower": 3.0, "upper": 3.0}, arguments=[])) == [
        1.5
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--widht", "3"], "unrecognized arguments: --widht 3"),
        (["--width", "x"], "argument --width: invalid int value: 'x'"),
        (["--schedule", "cosin"], "name = 'cosin'; allowed: constant, linear"),
        (["--epochs", "0"], "epochs"),
        (["--configuration", "absent.toml"], "absent.toml"),
    ],
)
def test_wrong_arguments(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        trained(trial(width=8, arguments=given))
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_a_name_that_the_command_line_needs() -> None:
    with pytest.raises(ValueError, match=r"trial\(seed=\.\.\.\): is an option of the command line"):
        trial(seed=3, arguments=[])


def test_the_test_value_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    one = trial(epochs=1, arguments=["--test"])
    trained(one)
    one.report_test(0.25)
    assert capsys.readouterr().out.splitlines()[-1] == "test value 0.25"
    with pytest.raises(RuntimeError, match='a test value is allowed only in the stage "test"'):
        trial(epochs=1, arguments=[]).report_test(0.25)


class Counter:
    """Something with a state."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def test_a_folder_keeps_the_training(tmp_path: Path) -> None:
    """Resumed equals uninterrupted, global random states included."""
    import random

    def run(folder: Path, stop_after: int = 9) -> list[tuple[int, int, float]]:
        one, counter, seen = trial(epochs=4, arguments=["--folder", str(folder)]), Counter(), []
        one.keep(counter=counter)
        for epoch in one.epochs():
            counter.count += 1
            seen.append((epoch, counter.count, random.random()))
            one.report(0.5)
            if epoch == stop_after:
                break
        return seen

    whole = run(tmp_path / "whole")
    assert [epoch for epoch, *_ in whole] == [1, 2, 3, 4]
    assert run(tmp_path / "parts", stop_after=2) + run(tmp_path / "parts") == whole
    assert run(tmp_path / "parts") == []


def test_other_parameters_do_not_resume_from_the_same_folder(tmp_path: Path) -> None:
    for width, first in (("8", 1), ("8", 2), ("16", 1)):
        one = trial(epochs=4, width=8, arguments=["--folder", str(tmp_path), "--width", width])
        assert one.first_epoch == first
        one.keep(counter=Counter())
        for _ in one.epochs():
            one.report(0.5)
            break
