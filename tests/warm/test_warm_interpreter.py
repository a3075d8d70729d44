"""Programs behave the same in the warm interpreter as in a new one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.studies import simulated_text
from tests.waiting import LONG_S, until


def ran(interpreter: str, folder: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [interpreter, *arguments],
        cwd=folder,
        env=os.environ | {"RALR_TUNE_STORAGE": "sqlite:///named.db"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG_S,
    )
    return done.returncode, done.stdout, done.stderr


def test_folder_environment_output_and_exit_code_are_its_own(warm_interpreter: str, tmp_path: Path) -> None:
    (tmp_path / "sim.toml").write_text(simulated_text())
    for arguments in (["check", "sim.toml"], ["status", "sim.toml"]):
        found = ran(warm_interpreter, tmp_path, "-m", "ralr_tune", *arguments)
        cold = ran(sys.executable, tmp_path, "-m", "ralr_tune", *arguments)
        assert (found[0], found[1]) == (cold[0], cold[1])  # each names its own interpreter on stderr
    assert "named.db" in found[2]
    assert ran(warm_interpreter, tmp_path, "-c", "print(3)") == (0, "3\n", "")


@pytest.fixture
def serving(warm_interpreter: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that runs until it is stopped."""
    (tmp_path / "sim.toml").write_text(simulated_text())
    assert ran(warm_interpreter, tmp_path, "-m", "ralr_tune", "run", "sim.toml", "--init")[0] == 0
    command = [warm_interpreter, "-m", "ralr_tune", "dashboard", "sim.toml", "--port", "0"]
    environment = os.environ | {"RALR_TUNE_STORAGE": "sqlite:///named.db"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "http://" in process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def programs(folder: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(folder)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_signals_reach_the_program(
    serving: subprocess.Popen[str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    assert len(programs(tmp_path)) >= 2  # client and program
    serving.send_signal(number)
    assert serving.wait(timeout=LONG_S) == code
    until(lambda: not programs(tmp_path), "the program ends with its client")
