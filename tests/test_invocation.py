"""Printed commands: they use the name that the shell resolves, or the path of the program in use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ralr_tune.invocation import Variable, command, program, python, relative_to_cwd, script


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bin folder of a virtual environment below the current folder, which is not activated."""
    folder = tmp_path / ".venv/bin"
    folder.mkdir(parents=True)
    for name in ("python", "python3"):
        (folder / name).symlink_to(os.path.realpath(sys.executable))
    for name in ("ralr-tune", "optuna"):
        (folder / name).write_text("")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "ralr_tune/__main__.py"), "run"])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return folder


def activate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin:/bin")


def test_an_environment_that_is_not_activated_is_named(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert program() == ".venv/bin/python -m ralr_tune"
    assert script("optuna") == ".venv/bin/optuna"
    monkeypatch.chdir("/")
    assert program() == f"{environment}/python -m ralr_tune"


def test_commands_of_an_activated_environment_need_no_path(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    activate(environment, monkeypatch)
    assert (program(), script("optuna")) == ("python -m ralr_tune", "optuna")
    (environment / "python").unlink()
    monkeypatch.setattr(sys, "executable", str(environment / "python3"))
    assert program() == "python3 -m ralr_tune"


def test_environments_of_the_same_python_are_distinguished(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both link to one file; only in one of them is this package installed."""
    other = environment.parent.parent / "other/bin"
    other.mkdir(parents=True)
    (other / "python").symlink_to(os.path.realpath(sys.executable))
    activate(other, monkeypatch)
    assert program() == ".venv/bin/python -m ralr_tune"


def test_the_entry_point_in_use_is_named(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(environment / "ralr-tune"), "run"])
    assert program() == ".venv/bin/ralr-tune"
    activate(environment, monkeypatch)
    assert program() == "ralr-tune"


def test_a_path_with_blanks_is_quoted(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = environment.rename(environment.parent / "b in")
    monkeypatch.setattr(sys, "executable", str(moved / "python"))
    assert program() == "'.venv/b in/python' -m ralr_tune"


@pytest.mark.parametrize(
    "word", ["a b", "a'b", "$HOME", "`id`", "*", "", "caf\u00e9", "caf\udce9'\\", "a\nb\x1b", "\U0001f680", "~"]
)
def test_a_shell_reads_every_word_unchanged(word: str) -> None:
    typed = python("-c", "import os, sys; print(*map(os.fsencode, sys.argv[1:]))", word, "end")
    assert "\n" not in typed
    assert typed.isascii() or word.isprintable()
    done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=True)
    assert done.stdout == f"{os.fsencode(word)} b'end'\n"


def test_the_shell_expands_a_variable() -> None:
    assert command("status", "sim", "--storage", Variable("URL"), "--out", Path("a b")) == (
        f"{program()} status sim --storage \"$URL\" --out 'a b'"
    )


def test_a_path_in_the_current_folder_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path, shown in ((tmp_path / "here/a/b", "a/b"), (tmp_path / "c", f"{tmp_path}/c"), (Path("a"), "a")):
        assert str(relative_to_cwd(path)) == shown
    (tmp_path / "here").rmdir()
    assert relative_to_cwd(tmp_path) == tmp_path
