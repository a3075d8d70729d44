"""What a worker receives: a command line that other users may see, and an environment that they must not."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ralr_tune.errors import DiskError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Job

PASSWORD = r"""Xq7{0}%40/:@#?&'"\ é<%s>9wKz$HOME`id`"""
URL = f"postgresql://me:{PASSWORD}@db/tuning"
PLACE = Place(3, "cuda:1", 2, sharing=4)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("sim", URL, tmp_path, slots="auto", folder_token="abc")


def test_the_command_line_holds_the_place_and_no_secret(job: Job, tmp_path: Path) -> None:
    command = job.command(PLACE)
    assert command[:5] == [sys.executable, "-m", "ralr_tune", "worker", "sim"]
    given = dict(zip(command[5::2], command[6::2], strict=True))
    assert given == {
        **{"--out": str(tmp_path), "--until": "test", "--slots": "auto"},
        **{"--device": "cuda:1", "--threads": "2", "--index": "3", "--sharing": "4"},
    }


def test_its_repr_hides_the_url(job: Job) -> None:
    assert "Xq7" not in f"{job} {job!r}"
    assert "sim" in repr(job)


def test_the_environment_holds_what_the_command_line_does_not(job: Job) -> None:
    assert job.environment(PLACE) == {
        "RALR_TUNE_STORAGE": URL,
        "RALR_TUNE_FOLDER_TOKEN": "abc",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
    }
    assert "RALR_TUNE_FOLDER_TOKEN" not in Job("sim", URL, job.out).environment(PLACE)


def test_a_shell_reads_the_environment_from_a_file_that_only_its_owner_can_read(job: Job, tmp_path: Path) -> None:
    file = tmp_path / "environment.sh"
    file.write_text("export STALE=1\n")
    file.chmod(0o666)
    before = os.umask(0)
    try:
        job.write_environment(PLACE, file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    show = f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    done = subprocess.run(
        ["sh", "-c", f'. "$0" && {show}', str(file)], env={}, capture_output=True, text=True, check=True
    )
    seen = json.loads(done.stdout)
    assert job.environment(PLACE).items() <= seen.items()
    assert "STALE" not in seen


def test_the_error_names_a_file_that_cannot_be_written(job: Job, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"none/environment\.sh: cannot be written"):
        job.write_environment(PLACE, tmp_path / "none" / "environment.sh")
