"""The client without a study, its command line, and as a copy in a program that has nothing but Python."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ralr_tune import client
from tests.child.conftest import trial_of

ROOT = Path(__file__).parents[1]


def test_without_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RALR_TUNE_TRIAL", "RALR_TUNE_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    assert client.report(1, 0.5) == client.CONTINUE
    assert client.report_test(0.5) == client.CONTINUE
    assert client.main(["report", "--epoch", "1", "--value", "0.5"]) == 0
    with pytest.raises(client.NoStudy, match="RALR_TUNE_TRIAL is not set"):
        client.trial()


def test_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "params": {"lr": 0.1}, "seed": 3, "epochs": 2, "first_epoch": 1, "stage": "train", "split": "train",
        "device": "cpu", "folder": str(tmp_path), "checkpoint": None, "base": [1.0, 0.5], "factors": [1.0, 3.0],
    }  # fmt: skip
    (tmp_path / "trial.json").write_text(json.dumps(content))
    monkeypatch.setenv("RALR_TUNE_TRIAL", str(tmp_path / "trial.json"))
    trial = client.trial()
    assert (trial.factor(2), trial.multiplier(2)) == (3.0, 1.5)
    assert trial.rate(2) == pytest.approx(0.15)
    assert (trial.folder, trial.checkpoint) == (tmp_path, None)


@pytest.mark.parametrize(("leaves_after", "codes"), [(4, [0, 0, 0, 0]), (2, [0, 10])])
def test_a_shell_script_reports_with_a_copy_of_the_client(tmp_path: Path, leaves_after: int, codes: list[int]) -> None:
    """The copy runs without site packages and without this package."""
    shutil.copy(client.__file__, tmp_path / "client.py")
    report = f"{sys.executable} -I -S {tmp_path / 'client.py'} report"
    (tmp_path / "train.sh").write_text(
        f"""for epoch in 1 2 3 4; do
            {report} --epoch $epoch --value 0.$epoch; code=$?
            echo $code >> {tmp_path / "codes"}
            [ $code -eq 0 ] || exit 0
        done"""
    )
    trial = trial_of(tmp_path, "", command=lambda start: ["/bin/sh", str(tmp_path / "train.sh")])
    epochs = trial.epochs()
    for _ in range(leaves_after):
        next(epochs)
    epochs.close()
    assert [int(code) for code in (tmp_path / "codes").read_text().split()] == codes


def test_a_refused_report_is_an_error_of_the_command(tmp_path: Path) -> None:
    script = f"""
done = subprocess.run([sys.executable, {client.__file__!r}, "report", "--epoch", "3", "--value", "1"],
                      capture_output=True, text=True)
(folder / "result").write_text(f"{{done.returncode}} {{done.stderr}}")
client.report(1, 0.5)
"""
    epochs = trial_of(tmp_path, script).epochs()
    next(epochs)
    epochs.close()
    assert (tmp_path / "row1.1.files/result").read_text() == "1 error: epoch = 3: must be 1, the next one\n"


def test_it_imports_only_the_standard_library() -> None:
    tree = ast.parse(Path(client.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_python_m_runs_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ralr_tune.client", "report"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--epoch" in done.stderr
