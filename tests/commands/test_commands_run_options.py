"""What a notebook gives to `run`: paths and texts where a path is meant, and one line for everything else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ralr_tune
from ralr_tune.commands.run import init
from ralr_tune.commands.run.options import RunOptions, with_fields
from ralr_tune.errors import StudyFileError, UsageError
from ralr_tune.store.location import STORAGE_VARIABLE
from tests.commands.conftest import Cli

QUICK: dict[str, Any] = {"workers": 1, "launcher": "inprocess", "confirm": False, "trials": 1}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(STORAGE_VARIABLE, raising=False)


@pytest.mark.parametrize("given", ["sim.toml", Path("sim.toml"), "sim"])
def test_a_path_or_a_name_is_a_study(study_file: Callable[..., Path], given: str | Path) -> None:
    path = study_file()
    if given == "sim":
        path = path.rename(path.parent / "studies" / path.name) if Path("studies").mkdir() is None else path
    assert ralr_tune.run(given, out="out", **QUICK).page == Path("out/report.html")
    assert Path("out/study.db").exists()


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("out", "out", Path("out")),
        ("out", "~/out", Path("~/out").expanduser()),
        ("out", None, None),
        ("devices", ["cuda:0", "cuda:1"], "cuda:0,cuda:1"),
        ("slots", "4", 4),
        ("slots", "auto", "auto"),
        ("slots", np.int64(2), 2),
        ("workers", np.int64(2), 2),
        ("hours", np.float32(0.5), 0.5),
        ("hours", 1, 1),
    ],
)
def test_what_is_meant_is_taken(field: str, value: object, kept: object) -> None:
    assert getattr(with_fields(None, {field: value}), field) == kept


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("out", value) for value in ("", " ", 5, b"out")),
        *(("storage", value) for value in ("", 5, Path("study.db"))),
        *((field, value) for field in ("trials", "workers") for value in ("2", 1.5, True)),
        *(("hours", value) for value in ("1", True)),
        *(("devices", value) for value in (None, "", [], [0], 0)),
        *(("slots", value) for value in (None, 0, -1, 1.5, "two", True)),
        *(("launcher", value) for value in (None, "", 5)),
        *(("launcher_options", value) for value in (None, ["a=1"], "a=1")),
        *((field, value) for field in ("confirm", "imports", "force", "start_workers") for value in ("no", 1, None)),
    ],
)
def test_a_value_of_another_type_is_one_line(field: str, value: Any) -> None:
    for make in (lambda: RunOptions(**{field: value}), lambda: with_fields(RunOptions(), {field: value})):
        with pytest.raises(UsageError, match=rf"^(--)?{field}\b.*; allowed|^--slots .*allowed: ") as refused:
            make()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spec": None}, "spec = None; allowed: a study, the path of a study file, or a name in studies/"),
        ({"spec": 5}, "spec = 5; allowed"),
        ({"spec": ""}, "spec = ''; allowed"),
        ({"spec": "digit"}, "STUDY 'digit': no such study file, .*did you mean 'digits'"),
        ({"options": {"workers": 1}}, "options = {'workers': 1}; allowed: RunOptions"),
        ({"progress": 5}, "progress = 5; allowed: True, False, None, a function"),
        ({"launcher": "x"}, "--launcher x: no such launcher; allowed: local, inprocess"),
    ],
)
def test_every_argument_of_run_is_checked_before_anything_starts(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        ralr_tune.run(**{"spec": "digits"} | arguments)
    with pytest.raises(TypeError, match="unexpected keyword argument 'worker'; did you mean 'workers'"):
        ralr_tune.run("digits", worker=1)
    assert not os.listdir()


def test_a_study_file_is_loaded_from_a_text_or_a_path(
    study_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = study_file()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ralr_tune.load_study_file(str(path)) == ralr_tune.load_study_file(path)
    assert ralr_tune.load_study_file("~/sim.toml").name == "sim"
    for value in (None, 5, b"sim.toml", ""):
        with pytest.raises(UsageError, match=r"^path = .*; allowed: the path of a study file"):
            ralr_tune.load_study_file(value)  # type: ignore[arg-type]
    with pytest.raises(StudyFileError, match="no such file"):
        ralr_tune.load_study_file("none.toml")


def test_dry_run_prints_the_script_of_slurm_and_creates_nothing(
    cli_inside: Cli, study_file: Callable[..., Path], tmp_path: Path
) -> None:
    url = "postgresql://me:s3cret@127.0.0.1/tuning"
    asked = ["--launcher", "slurm", "--workers", "3", "--launcher-option", "dry-run=true", "--storage", url]
    ran = cli_inside("run", str(study_file()), *asked)
    assert ran.code == 0
    assert "#SBATCH --array=0,1,2\n" in ran.out
    assert "s3cret" not in ran.out
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_is_never_ignored(study_file: Callable[..., Path]) -> None:
    for starts in (ralr_tune.run, lambda spec, **given: init(ralr_tune.load_study_file(spec), RunOptions(**given))):
        with pytest.raises(UsageError, match="dry-run=true: only `run` on the command line"):
            starts(study_file(), launcher="slurm", launcher_options={"dry_run": True}, storage="postgresql://x@y/z")


def test_remote_workers_need_a_database_that_they_reach(cli_inside: Cli, study_file: Callable[..., Path]) -> None:
    ran = cli_inside("run", str(study_file()), "--launcher", "slurm", "--launcher-option", "dry-run=true")
    assert ran.code == 2
    assert "--launcher slurm: its workers run on other machines, which cannot share the SQLite file" in ran.err
