"""A full disk, simulated by the system's limit on file sizes, which needs no separate mount."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from ralr_tune.studyfile import parse_study
from tests.faults.storm import violations
from tests.faults.test_faults_storm import NO_VIOLATIONS
from tests.studies import simulated_text
from tests.waiting import LONG_S


def run(
    folder: Path, *more: str, interpreter: str = sys.executable, limit: int | None = None
) -> subprocess.CompletedProcess[str]:
    """With a limit, in an interpreter of its own: only a child process takes it on."""

    def full() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [interpreter, "-m", "ralr_tune", "run", "sim.toml", "--quiet", "--workers", "2", *more]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        preexec_fn=full,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG_S,
    )


def test_a_full_disk_under_the_database_ends_the_run_and_loses_nothing(tmp_path: Path, warm_interpreter: str) -> None:
    text = simulated_text(search={"trials": 8}, confirm={"top": 1, "seeds": 2}, storage={"lease_s": 1})
    (tmp_path / "sim.toml").write_text(text)
    assert run(tmp_path, "--trials", "1", "--no-confirm", interpreter=warm_interpreter).returncode == 0
    database = tmp_path / "runs/sim/study.db"
    ran = run(tmp_path, limit=database.stat().st_size + 16_384)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    (said,) = ran.stderr.splitlines()[-1:]
    assert said.startswith("error: ")
    assert "study.db" in said
    assert "disk" in said
    ran = run(tmp_path, interpreter=warm_interpreter)
    assert ran.returncode == 0, ran.stderr
    assert violations(f"sqlite:///{database}", parse_study(text), tmp_path / "runs") == NO_VIOLATIONS
