"""Hostile names, paths and files: one line, exit code 2, and no file outside the study's folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from ralr_tune.commands.train import train_configuration
from ralr_tune.errors import UsageError
from ralr_tune.report.export import render
from tests.commands.conftest import Cli
from tests.exports import configuration
from tests.studies import simulated_text

NAMES = [
    "..",
    ".",
    "../up",
    "/etc/passwd",
    "a/../../b",
    "a\\b",
    "",
    " ",
    "ä",
    "n" * 5000,
    "-",
    "con\x1b]0;x\x07",
    "x\u202e",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize(
    "command", ["run", "check", "plan", "status", "report", "export", "worker", "preview", "dashboard"]
)
def test_names_that_lead_outside_the_folder(cli_inside: Cli, tmp_path: Path, command: str, name: str) -> None:
    ran = cli_inside(command, "--", name)
    assert ran.code == 2
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    assert line.startswith("error: ")
    assert line.isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["..", "a/b", "con", "a\\u0000", "n" * 81, "ä", "x."])
@pytest.mark.parametrize("key", ["study", "arm"])
def test_files_with_such_names_of_studies_or_arms(cli_inside: Cli, tmp_path: Path, key: str, name: str) -> None:
    text = simulated_text()
    text = (
        text.replace('name = "sim"', f'name = "{name}"')
        if key == "study"
        else text.replace("[arms.ralr", f'[arms."{name}"')
    )
    (tmp_path / "x.toml").write_text(text)
    ran = cli_inside("run", "x.toml")
    assert ran.code == 2
    assert all(line.startswith("error: x.toml: ") for line in ran.err.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["x.toml"]


def test_arms_that_differ_only_in_case(cli_inside: Cli, tmp_path: Path) -> None:
    """On a case-insensitive file system, their files would be the same file."""
    (tmp_path / "x.toml").write_text(simulated_text(arms={"monotone": {}, "Monotone": {}}))
    ran = cli_inside("check", "x.toml")
    assert ran.code == 2
    assert "differs from arms.monotone only in upper and lower case" in ran.err


@pytest.mark.parametrize("name", ["..toml", "...toml", ".toml"])
def test_a_configuration_whose_name_gives_no_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / name).write_text(render(configuration(), "toml"))
    with pytest.raises(UsageError, match="give a folder for the weights with --out"):
        list(train_configuration(folder / name, device="cpu", seed=None, out=None))
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_pipe_among_the_study_files(cli_inside: Cli, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    os.mkfifo(tmp_path / "studies" / "waiting.toml")
    (tmp_path / "studies" / "folder.toml").mkdir()
    listed = [line.split()[0] for line in cli_inside("studies").out.splitlines()]
    assert "digits" in listed
    assert not {"waiting", "folder"} & set(listed)


def test_a_study_file_may_come_through_a_pipe(cli: Cli, study_file: Callable[..., Path], tmp_path: Path) -> None:
    content = study_file().read_bytes()
    os.mkfifo(tmp_path / "pipe.toml")
    writer = Thread(target=(tmp_path / "pipe.toml").write_bytes, args=(content,), daemon=True)
    writer.start()
    assert cli("check", "./pipe.toml").code == 0
    writer.join(10)
