"""`run --init` and `run --no-workers`: a study whose workers are started elsewhere."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from tests.commands.conftest import Cli
from tests.waiting import LONG_S

StudyFile = Callable[..., Path]
BREAKS_LATER = """
from torch import nn

class build(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

    def forward(self, images):
        if len(images) > 2:
            raise ZeroDivisionError("my own bug")
        return self.layers(images)
"""
"""A network with a bug that shows only in training."""

SMALL: dict[str, Any] = {"search": {"trials": 2}, "confirm": {"top": 1, "seeds": 2}}


def watching(folder: Path) -> subprocess.Popen[str]:
    """`run --no-workers`, once it has created the study and shows its progress."""
    command = [sys.executable, "-m", "ralr_tune", "run", "sim.toml", "--no-workers"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any(line.startswith("sim: search") for line in process.stderr)
    return process


def rows(folder: Path) -> list[Any]:
    return Ledger(open_storage(f"sqlite:///{folder}/runs/sim/study.db"), "sim").rows()


def test_init_creates_the_plan_once_and_exits(cli: Cli, study_file: StudyFile, tmp_path: Path) -> None:
    study_file(**SMALL)
    first = cli("run", "sim.toml", "--init")
    assert (first.code, first.err) == (0, "")
    assert "study sim is ready in sqlite" in first.out
    assert re.search(r"4 trials planned; join with: \S+ -m ralr_tune worker sim$", first.out.strip())
    planned = rows(tmp_path)
    assert [row.state for row in planned] == ["free"] * 4
    assert cli("run", "sim.toml", "--init").out == first.out
    assert rows(tmp_path) == planned
    assert "6 trials planned" in cli("run", "sim.toml", "--init", "--trials", 3).out
    assert cli("run", "sim.toml", "--init", "--quiet").out == ""
    assert not (tmp_path / "runs/sim/report.html").exists()


def test_init_refuses_what_run_refuses(cli: Cli, study_file: StudyFile) -> None:
    study_file(**SMALL)
    assert cli("run", "sim.toml", "--init", "--trials", 0).code == 2
    assert cli("run", "sim.toml", "--trials", 1, "--no-confirm", "--workers", 1, "--quiet").code == 0
    study_file(**SMALL, training={"epochs": 9})
    ran = cli("run", "sim.toml", "--init")
    assert ran.code == 2
    assert "would not be comparable" in ran.err


def test_no_workers_waits_for_workers_elsewhere_and_reports(cli: Cli, study_file: StudyFile, tmp_path: Path) -> None:
    study_file(**SMALL)
    process = watching(tmp_path)
    ran = cli("worker", "sim")
    assert ran.code == 0, ran.err
    out, errors = process.communicate(timeout=LONG_S)
    assert process.returncode == 0, errors
    assert "The schedules themselves were not compared" in out
    assert (tmp_path / "runs/sim/report.html").exists()
    assert (tmp_path / "runs/sim/best/ralr.toml").exists()
    assert {row.state for row in rows(tmp_path)} == {"done"}
    again = cli("run", "sim.toml", "--no-workers").out  # all is done: reports at once
    interpreter = r"\S+ -m ralr_tune"  # this process has its own, and names it
    assert re.sub(interpreter, "", again) == re.sub(interpreter, "", out)


def test_no_workers_can_be_interrupted(study_file: StudyFile, tmp_path: Path) -> None:
    study_file(**SMALL)
    process = watching(tmp_path)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=LONG_S)
    assert process.returncode == 130
    assert "\ninterrupted; workers elsewhere continue; resume with: " in f"\n{errors}"
    assert errors.rstrip().endswith(" run sim.toml --no-workers")


def test_no_workers_stops_after_its_hours_with_a_report(cli: Cli, study_file: StudyFile, tmp_path: Path) -> None:
    study_file(**SMALL)
    ran = cli("run", "sim.toml", "--no-workers", "--hours", 1 / 3600, "--quiet")
    assert ran.code == 0, ran.err
    assert (tmp_path / "runs/sim/report.html").exists()
    assert [row.state for row in rows(tmp_path)] == ["free"] * 4


def test_a_failed_study_ends_no_workers_with_its_reason(cli: Cli, study_file: StudyFile, tmp_path: Path) -> None:
    task = {"kind": "classification", "data": {"source": "digits"}, "model": "broken:build"}
    (tmp_path / "broken.py").write_text(BREAKS_LATER)
    study_file(**SMALL, task=task)
    assert cli("run", "sim.toml", "--init").code == 0
    process = watching(tmp_path)
    ran = cli("worker", "sim", "--device", "cpu", "--threads", 1)
    assert ran.code == 1
    _, errors = process.communicate(timeout=LONG_S)
    assert process.returncode == 1
    assert "my own bug" in errors


def test_workers_and_no_workers_exclude_each_other(cli_inside: Cli, study_file: StudyFile) -> None:
    study_file(**SMALL)
    ran = cli_inside("run", "sim.toml", "--no-workers", "--workers", 2)
    assert ran.code == 2
    assert "--workers and --no-workers: give one of the two" in ran.err
