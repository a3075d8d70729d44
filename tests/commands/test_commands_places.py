"""Places that are not as usual: names that are not UTF-8, a home folder, a full device, a read-only mount."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from ralr_tune.__main__ import main
from ralr_tune.analysis.card import Card
from ralr_tune.analysis.facts import Facts
from ralr_tune.commands.dashboard import make_app
from ralr_tune.commands.locate import locate, opened
from ralr_tune.commands.report import make_report
from ralr_tune.commands.run import run
from ralr_tune.store.address import sqlite_url
from tests.commands.conftest import Cli
from tests.studies import simulated, simulated_text
from tests.waiting import LONG_S

SMALL: dict[str, Any] = {"search": {"trials": 2}, "confirm": {"top": 1, "seeds": 2}}


def test_a_study_in_a_folder_whose_name_is_not_utf_8(
    cli_inside: Cli, study_file: Callable[..., Path], tmp_path: Path
) -> None:
    """\udce9: a byte that is not UTF-8 (PEP 383)."""
    study_file(**SMALL)
    out = tmp_path / "caf\udce9"
    ran = cli_inside("run", "sim.toml", "--launcher", "inprocess", "--workers", 1, "--out", out)
    assert ran.code == 0, ran.err
    assert (out / "report.html").exists()
    assert cli_inside("status", "sim", "--out", out, "--json").json()["stage"] == "done"
    assert cli_inside("export", "sim", "--out", out, "-o", out / "\udcff.toml").code == 0
    assert cli_inside("train", out / "\udcff.toml", "--quiet").code == 0


@pytest.mark.parametrize("option", ["--out=~/out", "--out=~other-user-that-is-not-here/out"])
def test_a_home_folder_after_an_equals_sign(
    cli_inside: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, study_file: Callable[..., Path], option: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    study_file(**SMALL)
    ran = cli_inside("run", "sim.toml", "--init", option)
    if "other-user" in option:
        assert (ran.code, len(ran.err.splitlines())) == (2, 1)
        assert "has no home folder" in ran.err
    else:
        assert (tmp_path / "home/out/study.db").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("~")]


FULL = [
    ("check", "sim.toml"),
    ("--help",),
    ("run", "sim.toml", "--init"),
]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("arguments", FULL, ids=" ".join)
def test_an_output_that_cannot_be_written_is_one_line(
    warm_interpreter: str, tmp_path: Path, study_file: Callable[..., Path], arguments: tuple[str, ...]
) -> None:
    study_file(**SMALL)
    command = [warm_interpreter, "-m", "ralr_tune", *arguments]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, timeout=LONG_S, check=False)
        assert (ran.returncode, ran.stderr.decode()) == (
            1,
            "error: the output cannot be written: No space left on device\n",
        )
        wrong = [warm_interpreter, "-m", "ralr_tune", "check", "none.toml"]
        told = subprocess.run(wrong, cwd=tmp_path, stderr=full, stdout=subprocess.PIPE, timeout=LONG_S, check=False)
        assert (told.returncode, told.stdout) == (2, b"")


def test_a_terminal_that_cannot_show_a_character_shows_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study_file: Callable[..., Path]
) -> None:
    path = study_file()
    path = path.rename(path.with_name("caf\u00e9-\U0001f680.toml"))
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="latin-1"))
    with pytest.raises(SystemExit) as ended:
        main(["check", str(path)])
    assert ended.value.code == 0
    assert shown.getvalue().decode("latin-1").startswith(f"{tmp_path}/caf\u00e9-\\U0001f680.toml: valid")


# ---------------------------------------------------------------- read-only


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The out folder of a study that is done."""
    out = tmp_path_factory.mktemp("finished") / "sim"
    run(simulated(**SMALL), out=out, workers=1, launcher="inprocess")
    return out


@pytest.fixture
def read_only(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its storage, as on a read-only mount: nothing next to the database is made or changed."""
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    for module in ("file", "database", "connections"):
        monkeypatch.setattr(f"ralr_tune.store.{module}.is_writable", lambda file: False)
    yield sqlite_url(finished / "study.db")
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_what_only_reads_works_on_a_read_only_database(cli_inside: Cli, read_only: str, tmp_path: Path) -> None:
    storage = ("--storage", read_only)
    assert cli_inside("status", "sim", *storage, "--json").json()["stage"] == "done"
    assert cli_inside("export", "sim", *storage, "--format", "json").json()["provenance"]["study"] == "sim"
    assert cli_inside("check", "sim", *storage).code == 0
    assert cli_inside("repair", "sim", *storage, "--dry-run").code == 0
    assert cli_inside("report", "sim", *storage, "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out/report.html").exists()


def test_a_report_whose_panels_are_refused_is_a_report_all_the_same(
    read_only: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(facts: Facts, card: Card, pages: dict[str, optuna.Study]) -> None:
        pages["ralr"].set_user_attr("key", "value")

    monkeypatch.setattr("ralr_tune.commands.report.write_panels", refused)
    with opened(locate("sim", storage=read_only)) as storage:
        assert make_report(storage, "sim", tmp_path / "out").page.exists()
    (said,) = caplog.messages
    assert said.startswith("the dashboard's panels were not written: ")
    assert said.endswith("attempt to write a readonly database")


def test_the_dashboard_shows_a_read_only_database(read_only: str, tmp_path: Path) -> None:
    said: list[str] = []
    with opened(locate("sim", storage=read_only)) as storage:
        app = make_app(storage, tmp_path, write=False, token=None)
        asked = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies", "HTTP_HOST": "localhost", "SERVER_NAME": "x"}
        environ: dict[str, Any] = {**asked, "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
        found = json.loads(b"".join(app(environ, lambda status, headers, *rest: said.append(status))))
    assert said == ["200 OK"]
    assert {study["study_name"] for study in found["study_summaries"]} == {"sim/monotone", "sim/ralr"}


def test_what_writes_says_that_it_cannot(cli_inside: Cli, read_only: str, tmp_path: Path) -> None:
    (tmp_path / "sim.toml").write_text(simulated_text(**SMALL))
    for command in (["run", "sim.toml"], ["run", "sim.toml", "--init"], ["worker", "sim"]):
        ran = cli_inside(*command, "--storage", read_only)
        assert ran.code == 1
        assert "can be written to it; make both writable" in ran.err or "readonly database" in ran.err
        assert "defect" not in ran.err


@pytest.mark.slow
def test_a_real_read_only_mount(finished: Path, tmp_path: Path) -> None:
    mount = tmp_path / "mounted"
    shutil.copytree(finished, mount)
    python = f"{sys.executable} -m ralr_tune"
    script = (
        f"mount --bind {mount} {mount} && mount -o remount,ro,bind {mount} && "
        f"{python} status sim --storage sqlite:///{mount}/study.db && "
        f"{python} report sim --storage sqlite:///{mount}/study.db --out {tmp_path}/out"
    )
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("mounting takes root")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=root, capture_output=True, text=True, timeout=LONG_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/report.html").exists()
