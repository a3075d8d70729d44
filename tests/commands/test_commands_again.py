"""A command on a study, as it may be typed: with --storage and --out where it needs them, and never a password."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ralr_tune.commands.locate import again, locate
from ralr_tune.invocation import program
from ralr_tune.store.address import PASSWORD_VARIABLE, parse_address
from ralr_tune.store.location import STORAGE_VARIABLE, storage_url
from tests.studies import simulated_text

HERE = "sqlite:///runs/sim/study.db"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in (STORAGE_VARIABLE, PASSWORD_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("url", "out", "words"),
    [
        (HERE, None, ""),
        (HERE, "runs/sim", ""),
        (HERE, "out", f"--storage {HERE} --out out"),
        ("sqlite:///out/study.db", "out", "--out out"),
        ("sqlite:///out/study.db", None, "--storage sqlite:///out/study.db"),
        ("sqlite:///a b.db", None, "--storage 'sqlite:///a b.db'"),
        ("sqlite:////var/x.db", "a b", "--storage sqlite:////var/x.db --out 'a b'"),
        ("postgresql+psycopg2://me@h/d", None, "--storage postgresql://me@h/d"),
        ("postgresql://me:hush@h/d?sslmode=disable", None, "--storage 'postgresql://me:***@h/d?sslmode=disable'"),
        ("mariadb://me:hush@h:3307/d", None, "--storage 'mysql://me:***@h:3307/d'"),
    ],
)
def test_what_is_not_where_it_would_be_looked_for_is_named(url: str, out: str | None, words: str) -> None:
    address = parse_address(url)
    typed = again("status", "sim", address, None if out is None else Path(out).absolute())
    assert typed == f"{program()} status sim {words}".strip()
    if "hush" not in url:
        given = shlex.split(typed.removeprefix(program()))
        options = dict(zip(given[2::2], given[3::2], strict=True))
        found = storage_url(options.get("--storage"), None, Path(options.get("--out", "runs/sim")))
        assert parse_address(found) == address  # the same database


def test_a_storage_of_the_environment_goes_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE_VARIABLE, "postgres://me:hush@h/d")
    by_name = f'--storage "${STORAGE_VARIABLE}"'
    assert again("status", "sim", parse_address("postgresql://me:hush@h/d")).endswith(by_name)
    assert again("status", "sim", parse_address("postgresql://me:hush@h/e")).endswith("'postgresql://me:***@h/e'")
    # otherwise the variable would win over the default place
    assert again("status", "sim", parse_address(HERE)).endswith(f"--storage {HERE}")
    monkeypatch.setenv(STORAGE_VARIABLE, "no url")
    assert again("status", "sim", parse_address(HERE)).endswith(f"--storage {HERE}")


def test_a_masked_password_is_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "hush")
    address = parse_address("postgresql://me@h/d")
    (*_, shown) = shlex.split(again("status", "sim", address))
    assert parse_address(shown) == address
    monkeypatch.delenv(PASSWORD_VARIABLE)
    assert parse_address(shown).url.password == "***"


def test_run_takes_the_file_and_all_others_the_name(tmp_path: Path) -> None:
    (tmp_path / "file.toml").write_text(simulated_text())
    where = locate("file.toml", storage="sqlite:///x.db")
    assert where.command("run") == f"{program()} run file.toml --storage sqlite:///x.db"
    assert where.command("gc") == f"{program()} gc sim --storage sqlite:///x.db"
    stored = locate("other", storage="sqlite:///x.db")
    assert stored.command("run") == f"{program()} run STUDY.toml --storage sqlite:///x.db"
