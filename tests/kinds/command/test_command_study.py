"""Whole studies of a program whose answer is known."""

from __future__ import annotations

import contextlib
import json
import os
import signal
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
from tests.kinds.command.conftest import PROGRAM, Write, text
from tests.waiting import LONG_S, until

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def quick_databases(quick_tables: None) -> None:
    """All tests of this file open databases; none tests how their tables are created."""


def answer(study: Any, **options: Any) -> Any:
    return run(study, workers=1, launcher="inprocess", progress=False, **options)


def trained(folder: Path) -> Counter[tuple[str, str]]:
    """How often each epoch of each seed was trained; the two arms share seeds."""
    lines = [line.split() for line in (folder / "epochs").read_text().splitlines()]
    return Counter((seed, epoch) for _, seed, epoch, _ in lines)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of a finished study, which tests only read, and its facts."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "own.toml").write_text(text())
    with contextlib.chdir(folder):
        yield folder, answer(load_study_file("own.toml"), out=folder / "out").as_json()


def test_a_study_finds_the_known_answer(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = finished
    ralr, monotone = facts["arms"]["ralr"], facts["arms"]["monotone"]
    assert (facts["metric"], ralr["best"]["params"]["params.width"]) == ("score", 2)
    (twins,) = facts["twins"]
    assert twins["difference"] == pytest.approx(0.75 * 0.05, abs=0.006)
    assert ralr["confirm"]["mean"] > monotone["confirm"]["mean"] + 0.02
    assert list((folder / "out/checkpoints").iterdir()) == []
    before = trained(folder)
    assert answer(load_study_file("own.toml"), out=folder / "out").as_json()["arms"] == facts["arms"]
    assert trained(folder) == before


def test_the_best_configuration_is_trained_again_and_tested_once(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    before = trained(folder)
    lines = list(train_configuration(folder / "out/best/ralr.toml", device="cpu", seed=7, out=folder / "final"))
    score = json.loads((folder / "final/score.json").read_text())
    assert 0.6 < score["value"] < 0.8
    assert lines[-1].final
    assert trained(folder) - before == {("7", epoch): 1 for epoch in "123"}
    assert sorted(path.name for path in (folder / "final").iterdir()) == ["model.safetensors", "score.json"]


@pytest.mark.slow
def test_a_study_whose_worker_is_killed_loses_at_most_one_epoch(
    finished: tuple[Path, dict[str, Any]], study: Write, folder: Path
) -> None:
    _, whole = finished
    (folder / "program.py").write_text(PROGRAM.replace("EFFECT = 0.05", "EFFECT = 0.05\nimport time; time.sleep(0.05)"))
    study(storage={"lease_s": 1})
    code = "from ralr_tune import run; run('own.toml', workers=1, launcher='inprocess', progress=False, out='out')"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    worker = subprocess.Popen([sys.executable, "-c", code], env=environment)
    until(lambda: (folder / "epochs").exists() and len((folder / "epochs").read_text().splitlines()) >= 5, "it trains")
    assert not (folder / "out/report.html").exists()
    worker.send_signal(signal.SIGKILL)
    worker.wait(LONG_S)
    again = answer(load_study_file("own.toml"), out=folder / "out").as_json()
    for arm in ("monotone", "ralr"):
        for key in ("best", "confirm"):
            assert again["arms"][arm][key] == whole["arms"][arm][key]
    assert again["twins"] == whole["twins"]


def test_a_failing_program_ends_the_study_after_three_tries(study: Write, folder: Path) -> None:
    (folder / "program.py").write_text("# RALR_TUNE_TRIAL\nraise SystemExit('no data in ./data')")
    with pytest.raises(TrialError, match=r"failed 3 times: .*exited with code 1 .* epoch 1: no data in ./data"):
        answer(study(), out=folder / "out")


def test_changed_code_is_refused_or_begins_a_generation(study: Write, folder: Path) -> None:
    spec = study(search={"trials": 1, "start": []})
    answer(spec, out=folder / "out", confirm=False)
    (folder / "program.py").write_text(PROGRAM.replace('"""A program', '"""The program'))
    with pytest.raises(UsageError, match=r"program\.py \(task\.files\) changed"):
        answer(spec, out=folder / "out", confirm=False, trials=2)
    answer(spec, out=folder / "out", confirm=False, new_generation=True)


def test_the_exported_script_runs_the_winners_command_line(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    before = trained(folder)
    (folder / "winner.py").write_text(render(load_exported(folder / "out/best/ralr.toml"), "python"))
    subprocess.run([sys.executable, "winner.py"], check=True)
    assert sorted((trained(folder) - before).values()) == [1, 1, 1]
    assert (folder / "winner" / "state.json").exists()
