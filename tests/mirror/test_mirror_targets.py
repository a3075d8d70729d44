"""Where a study can be shown: everything else is one line before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.mirror import targets
from ralr_tune.mirror.targets import Target, parse_targets
from ralr_tune.secrecy import hidden
from tests.commands.conftest import Cli, cli_inside, study_file

__all__ = ["cli_inside", "study_file"]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All libraries, whatever this environment has; and W&B offline."""
    monkeypatch.setattr(targets, "find_spec", lambda name: object())
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("MLFLOW_TRACKING_URI", "WANDB_PROJECT", targets.VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "kind", "place"),
    [
        ("tensorboard", "tensorboard", "OUT/tensorboard"),
        ("tensorboard=else where", "tensorboard", "else where"),
        ("mlflow=http://127.0.0.1:5000", "mlflow", "http://127.0.0.1:5000"),
        ("mlflow=sqlite:///mlflow.db", "mlflow", "sqlite:///mlflow.db"),
        ("wandb", "wandb", "ralr-tune"),
        ("wandb=team/my project", "wandb", "team/my project"),
    ],
)
def test_what_is_understood(given: str, kind: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (found,) = parse_targets([given], Path("OUT"))
    assert found == Target(kind, str(tmp_path / place) if kind == "tensorboard" else place)


def test_defaults_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@host")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv(targets.VARIABLE, "mlflow\n\n wandb \n")
    mlflow, wandb = parse_targets([], tmp_path)
    assert (str(mlflow), str(wandb)) == ("mlflow=http://me:***@host", "wandb=mine")
    assert mlflow.place == "http://me:s3cret@host"
    assert hidden("at s3cret") == "at ***"


WRONG = [
    ("tensorbord", "tensorbord: unknown tracker; did you mean 'tensorboard'?"),
    ("comet=x", "comet=x: unknown tracker; allowed: tensorboard[=FOLDER], mlflow=URI, wandb[=PROJECT]"),
    ("", ": unknown tracker; allowed: tensorboard[=FOLDER], mlflow=URI, wandb[=PROJECT]"),
    ("tensorboard=", "tensorboard=: nothing after ="),
    ("tensorboard=FILE/x", "is not a folder"),
    ("tensorboard=s3://bucket/x", "must be a folder of this machine"),
    ("mlflow", "mlflow: where is it? Give mlflow=URI, or set MLFLOW_TRACKING_URI"),
    ("mlflow=ftp://host", "databricks"),
    ("mlflow=http://", "a URL without a server; allowed: http://HOST:PORT"),
    ("mlflow=http://host:port", "http://HOST:PORT"),
    ("mlflow=http://me:***@host", "*** stands for a password; write it"),
    ("wandb=a/b/c", "allowed: PROJECT or ENTITY/PROJECT, at most 128 characters, none of / \\ # ? % :"),
    ("wandb=" + "x" * 129, "allowed: PROJECT or ENTITY/PROJECT, at most 128 characters, none of / \\ # ? % :"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[given[:20] for given, _ in WRONG])
def test_anything_else_is_one_line_before_anything_starts(
    cli_inside: Cli, study_file: Callable[..., Path], tmp_path: Path, given: str, message: str
) -> None:
    study_file()
    (tmp_path / "FILE").touch()
    for command, option in (("run", "--mirror"), ("mirror", "--to")):
        refused = cli_inside(command, "sim.toml", option, given)
        assert refused.code == 2
        (line,) = refused.err.splitlines()
        assert line.startswith(f"error: {option} {given.partition('=')[0]}")
        assert message in line
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets.os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UsageError, match=f"--to tensorboard={tmp_path}/x: {tmp_path} is not writable; give a folder"):
        parse_targets([f"tensorboard={tmp_path}/x"], tmp_path)


@pytest.mark.parametrize("kind", targets.LIBRARIES)
def test_a_library_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(targets, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=rf"the package {kind} is not installed; type: .*pip install 'ralr-tune\[{kind}\]'"
    ):
        parse_targets([kind], tmp_path)


@pytest.mark.parametrize("value", ["disabled", "nonsense"])
def test_a_mode_in_which_wandb_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WANDB_MODE", value)
    with pytest.raises(UsageError, match=f"--to wandb: WANDB_MODE={value} sends nothing; allowed: online, offline"):
        parse_targets(["wandb"], tmp_path)


def test_other_wrong_uses(cli_inside: Cli, study_file: Callable[..., Path]) -> None:
    study_file()
    for words, message in {
        ("mirror", "sim.toml"): "mirror needs --to TRACKER or --notify URL: where is the study to be shown?",
        ("mirror", "sim.toml", "--to", "tensorboard", "--interval", "0"): "--interval 0: allowed: 1 to 3600 seconds",
        (
            "mirror",
            "sim.toml",
            "--to",
            "tensorboard",
            "--interval",
            "nan",
        ): "--interval nan: allowed: 1 to 3600 seconds",
        ("mirror", "sim.toml", "--to", "wandb", "--to", "wandb"): "--to wandb=ralr-tune: given twice",
        ("run", "sim.toml", "--init", "--mirror", "wandb"): "--mirror and --init: give one of the two",
        ("run", "sim.toml", "--init", "--notify", "true"): "--notify and --init: give one of the two",
    }.items():
        refused = cli_inside(*words)
        assert (refused.code, refused.err) == (2, f"error: {message}\n")
