"""The command as a whole; for each check see test_commands_health.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.commands import doctor
from ralr_tune.commands.doctor import Diagnosis, diagnose
from ralr_tune.commands.health.browser import browser_check
from ralr_tune.commands.health.check import Check
from ralr_tune.errors import UsageError
from ralr_tune.invocation import program
from ralr_tune.store import studies
from ralr_tune.store.database import open_storage
from tests.commands.conftest import Cli
from tests.databases import dump
from tests.store import first_release
from tests.studies import simulated

StudyFile = Callable[..., Path]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str | None]:
    """Replaces the process that imports torch; returns the study files passed to it."""
    given: list[str | None] = []

    class Probe:
        def __init__(self, study: str | None, out: Path) -> None:
            given.append(study)

        def facts(self) -> dict[str, Any]:
            data = {"found": "10 images", "weights": 1000} if given[-1] else None
            return {"threads": 2, "bfloat16": True, "torchvision": "", "cuda": None, "cuda_error": "", "gpus": [],
                    "data": data}  # fmt: skip

    monkeypatch.setattr(doctor, "Probe", Probe)
    monkeypatch.setattr(doctor, "browser_check", lambda: Check("browser", "ok", "a browser"))
    monkeypatch.delenv("RALR_TUNE_STORAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    return given


def verdicts(found: Diagnosis) -> dict[str, str]:
    return {check.name: check.verdict for check in found.checks}


@pytest.mark.usefixtures("quick")
def test_without_a_study_the_machine_and_the_storage_are_checked(sqlite_url: str) -> None:
    machine = verdicts(diagnose())
    assert "database" not in machine
    assert "data" not in machine
    assert {"python", "packages", "torch", "cores", "memory", "out folder", "space"} <= machine.keys()
    assert verdicts(diagnose(storage=sqlite_url)).keys() - machine.keys() == {"database file", "database", "tables"}


def test_with_a_study_its_storage_data_and_space_are_checked(
    quick: list[str | None], study_file: StudyFile, tmp_path: Path
) -> None:
    path = study_file()
    found = diagnose(str(path))
    assert quick == [path.read_text()]
    assert {"database file", "data"} <= verdicts(found).keys()
    (space,) = (check for check in found.checks if check.name == "space")
    assert "checkpoints and weights of this study need up to" in space.found
    assert [each.name for each in tmp_path.iterdir()] == ["sim.toml"]  # neither folder nor database was created


def test_a_study_that_only_its_storage_holds(quick: list[str | None], sqlite_url: str) -> None:
    text = simulated().text
    storage = open_storage(sqlite_url)
    studies.register(storage, name="sim", text=text, fingerprint="")
    storage.dispose()
    before = dump(sqlite_url)
    assert "study" not in verdicts(diagnose("sim", storage=sqlite_url))
    assert quick == [text]
    found = diagnose("other", storage=sqlite_url)
    assert verdicts(found)["study"] == "problem"
    assert not found.healthy
    assert dump(sqlite_url) == before


@pytest.mark.usefixtures("quick")
def test_tables_of_the_first_release_are_a_problem_with_a_fix(bare_url: str) -> None:
    first_release.make(bare_url)
    before = dump(bare_url)
    (tables,) = (check for check in diagnose("sim", storage=bare_url).checks if check.name == "tables")
    assert tables.verdict == "problem"
    assert tables.found.startswith("its tables are of an earlier version (0001)")
    assert f"; `{program()} repair sim --storage " in tables.found
    assert tables.found.endswith("` brings them up to date (copy the database first)")
    assert dump(bare_url) == before


@pytest.mark.usefixtures("quick")
def test_an_unknown_study_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        diagnose("digitz")


def test_the_last_line_counts() -> None:
    checks = [Check(str(number), verdict, "") for number, verdict in enumerate(("ok", "warning", "problem", "warning"))]
    assert Diagnosis(checks).as_text().splitlines()[-1] == "1 problem, 2 warnings"
    assert not Diagnosis(checks).healthy
    assert Diagnosis(checks[:2]).as_text().splitlines()[-1] == "1 warning"
    assert Diagnosis(checks[:2]).healthy
    assert Diagnosis(checks[:1]).as_text().splitlines()[-1] == "no problems"


def test_the_command_on_this_machine_leaves_nothing_behind(cli: Cli, study_file: StudyFile, tmp_path: Path) -> None:
    study_file()
    temporary = tmp_path / "temporary"
    home = tmp_path / "home"
    for folder in (temporary, home):
        folder.mkdir()
    before = set(tmp_path.rglob("*"))
    ran = cli("doctor", "sim.toml", "--json", env={"TMPDIR": str(temporary), "HOME": str(home)})
    assert ran.err == ""
    facts = ran.json()
    assert facts["healthy"] is True
    assert {"name", "verdict", "found", "mend"} == facts["checks"][0].keys()
    found = {check["name"]: check["verdict"] for check in facts["checks"]}
    assert found["torch"] == found["data"] == "ok"
    assert found["out folder"] in ("ok", "warning")  # depends on the current speed of the disk
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("quick")
def test_problems_are_code_1_with_every_password_masked(
    cli_inside: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RALR_TUNE_STORAGE", "mysql://me:hush@127.0.0.1:1/x")
    monkeypatch.setenv("BROWSER_PATH", "none")
    monkeypatch.setattr(doctor, "browser_check", browser_check)
    ran = cli_inside("doctor", "digits", "--out", "file/sub")
    assert (ran.code, ran.err) == (1, "")
    lines = {line.split()[1]: line for line in ran.out.splitlines() if line.startswith(("problem", "warning"))}
    assert "me:***@127.0.0.1:1" in lines["database"]
    assert "hush" not in ran.out
    assert lines["out"].startswith("problem  out folder      file/sub (will be created in ")
    assert lines["browser"].startswith(
        "warning  browser         BROWSER_PATH is 'none', which is not a file -> install one"
    )
    assert ran.out.splitlines()[-1].startswith("2 problems, 1 warning")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
