"""Launchers by name, including those of installed packages, and their options."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.launch.inprocess import InProcess
from ralr_tune.launch.local import LocalProcesses
from ralr_tune.launch.registry import make_launcher, names, parse_options
from tests.launch import elsewhere
from tests.launch.elsewhere import Elsewhere, ElsewhereOptions

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    return partial(elsewhere.install, monkeypatch, tmp_path / "site")


def test_the_launchers_of_this_package() -> None:
    assert names()[:2] == ["local", "inprocess"]
    assert isinstance(make_launcher("local"), LocalProcesses)
    assert isinstance(make_launcher("inprocess"), InProcess)


def test_a_launcher_of_an_installed_package(install: Install, tmp_path: Path) -> None:
    install(elsewhere="tests.launch.elsewhere:Elsewhere")
    made = make_launcher("elsewhere", {"folder": str(tmp_path)})
    assert isinstance(made, Elsewhere)
    assert made.options.folder == tmp_path
    assert "elsewhere" in names()


def test_an_unused_launcher_is_not_imported(install: Install, tmp_path: Path) -> None:
    install(broken="broken_engine:Engine")
    (tmp_path / "site" / "broken_engine.py").write_text("raise ImportError('no engine here')\n")
    assert "broken" in names()
    assert isinstance(make_launcher("local"), LocalProcesses)
    with pytest.raises(UsageError, match="--launcher broken: cannot be imported: ImportError: no engine here"):
        make_launcher("broken")


def test_a_package_cannot_replace_a_built_in_launcher(install: Install) -> None:
    install(local="tests.launch.elsewhere:Elsewhere")
    assert isinstance(make_launcher("local"), LocalProcesses)


@pytest.mark.parametrize("path", ["ralr_tune.launch.devices:places", "ralr_tune.launch.launcher:Job"])
def test_an_object_that_is_not_a_launcher_is_refused(install: Install, path: str) -> None:
    install(odd=path)
    with pytest.raises(UsageError, match=f"--launcher odd: {path} is not a subclass of"):
        make_launcher("odd")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lokal", "did you mean 'local'?"),
        ("kube", f"allowed: {', '.join(names())}"),
        ("", f"allowed: {', '.join(names())}"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name: str, expected: str) -> None:
    with pytest.raises(UsageError, match=f"--launcher {name}: no such launcher; ") as error:
        make_launcher(name)
    assert expected in str(error.value)


def test_option_texts_are_converted_to_the_declared_types(install: Install, tmp_path: Path) -> None:
    install(elsewhere="tests.launch.elsewhere:Elsewhere")
    given = ["folder=/tmp/a=b", "cpus=4", "use_spot=true", "lines=module load x", "lines=set -e"]
    options = make_launcher("elsewhere", parse_options(given)).options
    assert options == ElsewhereOptions(
        folder=Path("/tmp/a=b"), cpus=4, use_spot=True, lines=("module load x", "set -e")
    )
    once = make_launcher("elsewhere", parse_options(["folder=.", "lines=set -e"])).options
    assert once == ElsewhereOptions(folder=Path(), lines=("set -e",))
    python = make_launcher("elsewhere", {"folder": tmp_path, "cpus": 4, "lines": ["a", "b"]}).options
    assert python == ElsewhereOptions(folder=tmp_path, cpus=4, lines=("a", "b"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["folder is missing"]),
        ({"folder": ".", "cpu": "2"}, ["cpu = \"2\": unknown key; did you mean 'cpus'?"]),
        ({"folder": ".", "cpus": "two"}, ['cpus = "two": must be a whole number']),
        ({"folder": ".", "use_spot": "maybe"}, ['use_spot = "maybe": must be true or false']),
        ({"folder": ".", "cpus": ["1", "2"]}, ['cpus = ["1", "2"]: may be given only once']),
        ({"cpus": "x", "partition": "gpu"}, ["folder is missing", 'cpus = "x"', 'partition = "gpu": unknown key']),
    ],
)
def test_all_invalid_options_are_reported_at_once(install: Install, given: dict[str, Any], expected: list[str]) -> None:
    install(elsewhere="tests.launch.elsewhere:Elsewhere")
    with pytest.raises(UsageError) as error:
        make_launcher("elsewhere", given)
    found = str(error.value).splitlines()
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert line.startswith("--launcher-option ")
        assert words in line


@pytest.mark.parametrize("key", ["use_spot", "use-spot"])
def test_keys_may_be_written_with_dashes(install: Install, key: str) -> None:
    install(elsewhere="tests.launch.elsewhere:Elsewhere")
    assert make_launcher("elsewhere", {"folder": ".", key: "true"}).options == ElsewhereOptions(
        folder=Path(), use_spot=True
    )


def test_options_for_a_launcher_without_any_are_refused() -> None:
    with pytest.raises(UsageError, match="--launcher-option partition: launcher local has no options"):
        make_launcher("local", {"partition": "gpu"})


@pytest.mark.parametrize("text", ["partition", "=gpu", ""])
def test_an_option_is_a_key_and_a_value(text: str) -> None:
    with pytest.raises(UsageError, match=f"--launcher-option {text}: allowed: key=value"):
        parse_options([text])
    assert parse_options(["partition="]) == {"partition": ""}


def test_the_registry_imports_no_launcher() -> None:
    script = "import sys, ralr_tune.launch.registry; print([name for name in sys.modules if 'launch.' in name])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "ralr_tune.launch.launcher" in done.stdout
    assert "ralr_tune.launch.local" not in done.stdout
    assert "ralr_tune.launch.inprocess" not in done.stdout
