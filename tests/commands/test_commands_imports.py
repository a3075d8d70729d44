"""A study file may import a custom network: `check` and `run` say so, and `--no-imports` refuses it before it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.commands.run import run
from ralr_tune.errors import UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.inprocess import InProcess
from ralr_tune.launch.launcher import Job
from ralr_tune.launch.worker import work
from ralr_tune.report.export import render
from ralr_tune.store import studies
from ralr_tune.store.database import open_storage
from ralr_tune.studyfile import parse_study
from tests.commands.conftest import Cli
from tests.exports import configuration
from tests.studies import simulated_text

TASK: dict[str, Any] = {"kind": "classification", "data": {"source": "digits"}, "model": "spy_net:build"}
PLACE = Place(0, "cpu", 1)
NETWORK = """
from torch import nn

def build(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
"""


@pytest.fixture
def spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once spy_net has been imported."""
    (tmp_path / "spy_net.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{NETWORK}")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "ran"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "best.toml"
    path.write_text(render(configuration(task=TASK), "toml"))
    return path


def test_check_names_module_and_folder_in_one_line(
    cli_inside: Cli, study_file: Callable[..., Path], spy: Path, tmp_path: Path
) -> None:
    study_file(task=TASK, confirm={"seeds": 4})
    ran = cli_inside("check", "sim.toml")
    assert ran.out.splitlines()[1:] == [
        f'task.model = "spy_net:build" runs code outside of ralr_tune: module spy_net, from {tmp_path}'
    ]
    assert spy.exists()  # the network was tried
    study_file(confirm={"seeds": 4})
    assert len(cli_inside("check", "sim.toml", "--no-imports").out.splitlines()) == 1


@pytest.mark.parametrize("command", ["check", "run", "plan"])
def test_no_imports_refuses_a_study_before_anything_is_imported(
    cli_inside: Cli, study_file: Callable[..., Path], spy: Path, tmp_path: Path, command: str
) -> None:
    study_file(task=TASK)
    ran = cli_inside(command, "sim.toml", "--no-imports")
    assert ran.code == 2
    assert 'task.model = "spy_net:build" runs code' in ran.err
    assert len(ran.err.splitlines()) == 1
    tried = "" if command == "run" else ", so it was not tried"
    assert ran.err.endswith(f"; --no-imports forbids that{tried}\n")
    assert not spy.exists()
    assert not (tmp_path / "runs").exists()


def test_no_imports_refuses_a_configuration(cli_inside: Cli, config: Path, spy: Path, tmp_path: Path) -> None:
    ran = cli_inside("train", config.name, "--no-imports")
    assert (ran.code, spy.exists(), (tmp_path / "best").exists()) == (2, False, False)
    assert "--no-imports forbids that" in ran.err


def test_run_logs_imports_before_it_starts(
    study_file: Callable[..., Path], spy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = simulated_text(task=TASK)
    with caplog.at_level("INFO", "ralr_tune.commands.run"), pytest.raises(UsageError, match="no/such/folder"):
        run(parse_study(text), out=Path("/dev/null/no/such/folder"))
    assert [line.partition(" runs code")[0] for line in caplog.messages] == ['task.model = "spy_net:build"']


def test_a_worker_refuses_imports_of_the_stored_file(spy: Path, tmp_path: Path, sqlite_url: str) -> None:
    """The database may hold another study file than the one that the user checked."""
    spec = parse_study(simulated_text(task=TASK))
    storage = open_storage(sqlite_url)
    studies.register(storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
    storage.dispose()
    with pytest.raises(UsageError, match="--no-imports forbids that"):
        work(Job("sim", sqlite_url, tmp_path, imports=False), PLACE)
    launcher = InProcess()
    launcher.start(Job("sim", sqlite_url, tmp_path, "search", imports=False), PLACE)
    launcher.stop(60)
    assert launcher.poll() == {0: 2}
    assert "--no-imports forbids that" in launcher.tail(0)
    assert not spy.exists()


def test_workers_inherit_no_imports(tmp_path: Path) -> None:
    assert "--no-imports" not in Job("sim", "sqlite:///x", tmp_path, "search").command(PLACE)
    assert "--no-imports" in Job("sim", "sqlite:///x", tmp_path, "search", imports=False).command(PLACE)
