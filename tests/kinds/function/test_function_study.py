"""Whole studies of a function whose answer is known."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ralr_tune import run
from ralr_tune.commands.train import train_configuration
from ralr_tune.errors import TrialError, UsageError
from ralr_tune.report.export import render
from ralr_tune.studyfile import load_study_file
from ralr_tune.studyfile.exported import load_exported
from tests.kinds.function.conftest import FUNCTION, Write, text

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def quick_databases(quick_tables: None) -> None:
    """All tests of this file open databases; none tests how their tables are created."""


def answer(study: Any, **options: Any) -> Any:
    return run(study, workers=1, launcher="inprocess", progress=False, **options)


def lines(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "epochs").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of a finished study, which tests only read, and its facts."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "known_answer.py").write_text(FUNCTION)
    (folder / "own.toml").write_text(text())
    sys.path.insert(0, str(folder))
    with contextlib.chdir(folder):
        yield folder, answer(load_study_file("own.toml"), out=folder / "out").as_json()
    sys.path.remove(str(folder))


def test_a_study_finds_the_known_answer(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = finished
    ralr, monotone = facts["arms"]["ralr"], facts["arms"]["monotone"]
    assert (facts["metric"], ralr["best"]["params"]["params.width"]) == ("score", 2)
    (twins,) = facts["twins"]
    assert twins["difference"] == pytest.approx(0.75 * 0.05, abs=0.006)
    assert ralr["confirm"]["mean"] > monotone["confirm"]["mean"] + 0.02
    assert list((folder / "out/checkpoints").iterdir()) == []


def test_other_metrics_are_in_the_report(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    page = (folder / "out/report.html").read_text()
    assert "state in 4 search trials" in page
    assert "no verdict and no pruning depends on them" in page


def test_one_process_trained_all_and_was_told_what_for(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    assert len({pid for pid, *_ in lines(folder)[:-3]}) == 1  # the last three may be those of the test below
    assert {stage for *_, stage in lines(folder)} >= {"search", "confirm"}


def test_the_best_configuration_is_trained_again_and_tested_once(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    before = Counter(map(tuple, lines(folder)))
    found = list(train_configuration(folder / "out/best/ralr.toml", device="cpu", seed=7, out=folder / "final"))
    assert 0.6 < json.loads((folder / "final/score.json").read_text())["value"] < 0.8
    assert found[-1].final
    new = Counter(map(tuple, lines(folder))) - before
    assert [line[1:] for line in new] == [("7", epoch, "train") for epoch in "123"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("raise ValueError('too wide')", r"failed before it reported epoch 1: ValueError: too wide \(its output: "),
        ("return", r"returned before it reported epoch 1"),
        ("trial.report(0.5); continue", r"RuntimeError: the study's schedule was not applied"),
        ("continue", r"RuntimeError: epoch 1 ended without trial\.report\(value\)"),
        ("trial.report_test(0.5)", r'trial\.stage = "search": a test value is allowed only in the stage "test"'),
        ("trial.params['depth']", r"KeyError: 'depth: the trial has no such parameter; it has .*width'"),
        ("os._exit(3)", r"exited with code 3 before it reported epoch 1"),
    ],
)
def test_a_function_that_fails_ends_the_study_with_its_reason(
    study: Write, folder: Path, changed: str, message: str
) -> None:
    study()
    loop = "    for epoch in trial.epochs():\n"
    (folder / "known_answer.py").write_text(FUNCTION.replace(loop, f"{loop}        {changed}\n"))
    with pytest.raises(TrialError, match=message):
        answer("own.toml", out="out")


def test_out_of_memory_ends_the_configuration_not_the_study(study: Write, folder: Path) -> None:
    study(search={"trials": 3, "start": [{"lr": 0.1, "params.width": 2}, {"lr": 0.1, "params.width": 1}]})
    too_large = "    if trial.params['width'] == 1: raise MemoryError\n    for epoch in trial.epochs():\n"
    (folder / "known_answer.py").write_text(FUNCTION.replace("    for epoch in trial.epochs():\n", too_large))
    trials = answer("own.toml", out="out").trials()
    ended = {(trial["params.width"], trial["outcome"]) for trial in trials if trial["params.width"]}
    assert ended == {(1, "diverged"), (2, "complete")}


def test_changed_code_is_refused(study: Write, folder: Path) -> None:
    study()
    answer("own.toml", out="out")
    study(confirm={"top": 1, "seeds": 3})
    (folder / "known_answer.py").write_text(FUNCTION.replace("EFFECT = 0.05", "EFFECT = 0.06"))
    with pytest.raises(UsageError, match="known_answer"):
        answer("own.toml", out="out")


def test_the_exported_script_trains_the_winner_and_tests_it_once(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    exported = load_exported(folder / "out/best/ralr.toml")
    (folder / "winner.py").write_text(render(exported, "python"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    done = subprocess.run([sys.executable, "winner.py"], capture_output=True, text=True, check=True, env=environment)
    *epochs, test = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in epochs] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert 0.6 < float(test.removeprefix("test value ")) < 0.8
