"""`run` with a named launcher: its options, workers on other machines, and how it interprets exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.__main__ import main
from ralr_tune.commands.run import run
from ralr_tune.commands.run.options import RunOptions
from ralr_tune.errors import TrialError, UsageError
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from tests.commands.conftest import Cli
from tests.launch import elsewhere
from tests.studies import simulated

Remote = Callable[..., Any]
SMALL = {"search": {"trials": 1}, "confirm": {"top": 1, "seeds": 2}}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an engine whose launcher is installed as "elsewhere"."""
    monkeypatch.delenv("RALR_TUNE_STORAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    elsewhere.install(monkeypatch, tmp_path / "site", elsewhere="tests.launch.elsewhere:Elsewhere")
    (tmp_path / "engine").mkdir()
    return tmp_path / "engine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--launcher", "lokal"], "--launcher lokal: no such launcher; did you mean 'local'?"),
        (["--launcher-option", "partition"], "--launcher-option partition: allowed: key=value"),
        (["--launcher-option", "a=b"], "--launcher-option a: launcher local has no options"),
        (["--launcher", "inprocess", "--no-workers"], "--launcher and --no-workers: give one of the two"),
        (["--launcher-option", "a=b", "--init"], "--launcher-option and --init: give one of the two"),
    ],
)
def test_wrong_usage_is_reported_before_anything_is_created(cli_inside: Cli, arguments: list[str], said: str) -> None:
    ran = cli_inside("run", "digits", *arguments)
    assert (ran.code, ran.err) == (2, f"error: {said}\n")
    assert not Path("runs").exists()


def test_each_wrong_option_of_a_launcher_is_one_line(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"folder={engine}", "cpu=2", "use-spot=maybe"]
    with pytest.raises(SystemExit, match="2"):
        main(
            ["run", "digits", "--launcher", "elsewhere", *(word for o in options for word in ("--launcher-option", o))]
        )
    assert capsys.readouterr().err.splitlines() == [
        'error: --launcher-option use_spot = "maybe": must be true or false',
        "error: --launcher-option cpu = \"2\": unknown key; did you mean 'cpus'?",
    ]
    assert not Path("runs").exists()


@pytest.mark.parametrize("storage", [None, "sqlite:///tuning.db"])
def test_workers_on_other_machines_need_a_server(engine: Path, storage: str | None) -> None:
    with pytest.raises(UsageError) as error:
        run(simulated(**SMALL), storage=storage, launcher="elsewhere", launcher_options={"folder": engine})
    file = Path(storage.removeprefix("sqlite:///") if storage else "runs/sim/study.db").absolute()
    assert str(error.value) == (
        "--launcher elsewhere: its workers run on other machines, which cannot share the SQLite file "
        f"{file}; give --storage postgresql://... or mysql://..."
    )
    assert not Path("runs").exists()
    assert list(engine.iterdir()) == []


def test_workers_that_do_not_see_the_folder_end_the_run_before_any_trial(
    engine: Path, tmp_path: Path, server_url: str
) -> None:
    (tmp_path / "local-disk").mkdir()
    options = RunOptions(server_url, tmp_path / "out", workers=2, launcher="elsewhere")
    seen = {"folder": engine, "mount": tmp_path / "local-disk"}
    with pytest.raises(TrialError, match="holds no file folder-token: the folder is not shared"):
        run(simulated(**SMALL), options, launcher_options=seen)
    rows = Ledger(open_storage(server_url), "sim").rows()
    assert {(row.state, row.attempt) for row in rows} == {("free", 0)}
    assert run(simulated(**SMALL), options, launcher_options={"folder": engine}, confirm=False).answer
    assert (tmp_path / "out/folder-token").exists()


def test_a_run_on_one_machine_needs_no_token(tmp_path: Path) -> None:
    run(simulated(**SMALL), out=tmp_path, workers=1, launcher="inprocess", confirm=False)
    assert not (tmp_path / "folder-token").exists()


def test_options_can_be_fields_or_one_object(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--trials 0: allowed: at least 1"):
        run(simulated(), trials=0)
    with pytest.raises(UsageError, match="--trials 0: allowed: at least 1"):
        run(simulated(), RunOptions(trials=0))
    with pytest.raises(UsageError, match="--hours -1: allowed: more than 0"):
        run(simulated(), RunOptions(trials=1), hours=-1)
    with pytest.raises(TypeError, match="wrokers"):
        run(simulated(), wrokers=1)
