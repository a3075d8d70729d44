from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.__main__ import main
from tests.studies import simulated_text
from tests.waiting import LONG_S


@dataclass(frozen=True)
class Ran:
    """The result of a command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Cli = Callable[..., Ran]


@pytest.fixture(autouse=True)
def quick_databases(quick_tables: None) -> None:
    """All tests of this folder open databases; none tests how their tables are created."""


@pytest.fixture
def cli(tmp_path: Path, warm_interpreter: str) -> Cli:
    """Runs `python -m ralr_tune ARGUMENTS` in a separate process and folder, with imports already loaded."""
    clean = {name: value for name, value in os.environ.items() if name != "RALR_TUNE_STORAGE"}

    def run(*arguments: object, env: dict[str, str] | None = None, timeout_s: float = LONG_S) -> Ran:
        done = subprocess.run(
            [warm_interpreter, "-m", "ralr_tune", *map(str, arguments)],
            cwd=tmp_path,
            env=clean | {"OMP_NUM_THREADS": "1"} | (env or {}),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def cli_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The same in this process: for commands that end before any heavy import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RALR_TUNE_STORAGE", raising=False)

    def run(*arguments: object) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes sim.toml, the small simulated study with `changes`, into the working folder."""

    def write(**changes: dict[str, Any]) -> Path:
        path = tmp_path / "sim.toml"
        path.write_text(simulated_text(**changes))
        return path

    return write
