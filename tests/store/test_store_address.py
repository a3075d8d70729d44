from __future__ import annotations

from pathlib import Path

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.secrecy import hidden
from ralr_tune.store.address import PASSWORD_VARIABLE, parse_address, sqlite_url
from ralr_tune.store.location import STORAGE_VARIABLE


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql://u@h/d", "postgresql+psycopg"),
        ("postgres://u@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg"),
        ("mysql://u@h/d", "mysql+pymysql"),
        ("mariadb://u@h/d", "mysql+pymysql"),
        ("mariadb+pymysql://u@h/d", "mysql+pymysql"),
        ("postgresql+psycopg2://u@h/d", "postgresql+psycopg"),
        ("postgres+psycopg2://u@h/d", "postgresql+psycopg"),
        ("postgresql+asyncpg://u@h/d", "postgresql+psycopg"),
        ("postgresql+pg8000://u@h/d", "postgresql+psycopg"),
        ("mysql+mysqldb://u@h/d", "mysql+pymysql"),
        ("mysql+mysqlconnector://u@h/d", "mysql+pymysql"),
        ("mariadb+mariadbconnector://u@h/d", "mysql+pymysql"),
        ("sqlite+aiosqlite:///x.db", "sqlite+pysqlite"),
        ("sqlite:///x.db", "sqlite+pysqlite"),
    ],
)
def test_driver_of_a_url(url: str, driver: str) -> None:
    assert parse_address(url).url.drivername == driver


@pytest.mark.parametrize("password", ["p{a}ss", "{0}", "100%", "a@b:c/d?e#f", "pass word+&", "äöü"])
def test_a_password_is_preserved_and_never_shown(password: str) -> None:
    from urllib.parse import quote

    address = parse_address(f"postgresql://me:{quote(password, safe='')}@host:5433/db")
    assert address.url.password == password
    assert parse_address(address.plain).url.password == password
    assert address.for_optuna.format(SCHEMA_VERSION=12) == address.plain
    assert address.masked == "postgresql+psycopg://me:***@host:5433/db"
    for shown in (str(address), repr(address), f"{address}"):
        assert password not in shown
        assert quote(password, safe="") not in shown


def test_passwords_among_the_options_are_masked() -> None:
    address = parse_address("postgresql://me@host/db?password=hush&sslpassword=quiet&connect_timeout=3")
    assert address.masked == "postgresql+psycopg://me@host/db?connect_timeout=3&password=***&sslpassword=***"
    assert address.clean("tried 'hush'\n and quiet") == "tried '***' and ***"


def test_clean_knows_all_forms_of_a_password() -> None:
    address = parse_address("postgresql://me:p%20%7Bx%7D@host/db")
    assert address.clean("p {x}, p%20%7Bx%7D, p+%7Bx%7D") == "***, ***, ***"


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("postgresql://me:hu@sh@host/db", "%40"),
        ("postgresql://me:hush@host:sh/db", "cannot be parsed"),
        ("hush", "cannot be parsed"),
        ("oracle://me:hush@host/db", "'oracle' is not supported"),
        ("postgresql+mysqldb://me:hush@host/db", "'mysqldb' is not supported"),
        ("mysql+psycopg2://me:hush@host/db", "'psycopg2' is not supported"),
        ("postgresql+odbc://me:hush@host/db", "'odbc' is not supported"),
        ("postgresql://me:hush@h\udce9/db", "is not UTF-8"),
        ("postgresql://me:hush@host", "names no database"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:///file:x?mode=memory&uri=true", "is not a file"),
        ("sqlite://me:hush@host/x.db", "is not a file"),
    ],
)
def test_invalid_urls_are_refused_without_their_password(url: str, part: str) -> None:
    with pytest.raises(UsageError, match=r"^storage URL \(--storage, or storage\.url\): ") as raised:
        parse_address(url)
    assert part in str(raised.value)
    assert "hu@sh" not in str(raised.value)
    assert "hush" not in str(raised.value)


def test_a_wrong_url_of_the_environment_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE_VARIABLE, "oracle://db")
    with pytest.raises(UsageError, match=f"^{STORAGE_VARIABLE}: 'oracle' is not supported; allowed: sqlite"):
        parse_address("oracle://db")


def test_sqlite_file_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    address = parse_address("sqlite:///runs/x.db")
    assert address.file == tmp_path / "runs" / "x.db"
    assert parse_address(address.plain) == address


@pytest.mark.parametrize(
    ("path", "file"),
    [("~/x.db", "home/x.db"), ("~/a/../x.db", "home/a/../x.db"), ("./~/x.db", "~/x.db"), ("a~/x.db", "a~/x.db")],
)
def test_a_home_folder_is_meant_as_in_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert parse_address(f"sqlite:///{path}").file == tmp_path / file


def test_a_folder_that_release_0_1_named_so_is_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    (tmp_path / "~/x.db").touch()
    assert parse_address("sqlite:///~/x.db").file == tmp_path / "~/x.db"
    with pytest.raises(UsageError, match="'~nobody-here' has no home folder"):
        parse_address("sqlite:///~nobody-here/x.db")


@pytest.mark.parametrize(
    ("url", "query"),
    [
        ("mysql://u@h/d?charset=utf8", {"charset": "utf8mb4"}),
        ("mysql+mysqldb://u@h/d?charset=latin1&connect_timeout=3", {"charset": "utf8mb4", "connect_timeout": "3"}),
        ("postgresql://u@h/d?client_encoding=latin1", {"client_encoding": "utf8"}),
        ("postgresql://u@h/d?sslmode=disable", {"sslmode": "disable"}),
    ],
)
def test_text_is_always_sent_as_utf_8(url: str, query: dict[str, str]) -> None:
    assert dict(parse_address(url).url.query) == query


@pytest.mark.parametrize(
    "name", ["a b.db", "50%.db", "{x}.db", "ü#&.db", "what?.db", "caf\udce9.db", "50%\udce9 é?.db", "\udcff/\udc80.db"]
)
def test_sqlite_url_accepts_any_path(tmp_path: Path, name: str) -> None:
    address = parse_address(sqlite_url(tmp_path / name))
    assert address.file == tmp_path / name
    assert parse_address(address.plain) == address
    assert parse_address(address.masked) == address


NASTY = r"""p{0}%40/:@#?&'"\ é"""


@pytest.fixture(autouse=True)
def _no_passwords_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (PASSWORD_VARIABLE, f"{PASSWORD_VARIABLE}_FILE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    "url", ["postgresql://me@h/d", "mysql://me@h/d?charset=utf8mb4", "postgresql://me@h/d?sslpassword=x"]
)
def test_a_password_comes_from_a_variable_if_the_url_has_none(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert parse_address(url).url.password is None
    monkeypatch.setenv(PASSWORD_VARIABLE, NASTY)
    address = parse_address(url)
    assert address.url.password == NASTY
    assert "me:***@h" in str(address)
    assert parse_address(address.plain) == address


def test_a_password_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{NASTY}\n")
    monkeypatch.setenv(f"{PASSWORD_VARIABLE}_FILE", str(tmp_path / "password"))
    assert parse_address("postgresql://me@h/d").url.password == NASTY
    (tmp_path / "password").write_text("\n")
    with pytest.raises(UsageError, match=f"{PASSWORD_VARIABLE}_FILE=.*password: is empty"):
        parse_address("postgresql://me@h/d")


@pytest.mark.parametrize(
    "url", ["postgresql://me:own@h/d", "postgresql://me@h/d?password=own", "postgresql://h/d", "sqlite:////tmp/x.db"]
)
def test_the_variable_is_for_urls_with_a_user_and_no_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    before = parse_address(url)
    monkeypatch.setenv(PASSWORD_VARIABLE, "other")
    assert parse_address(url) == before


def test_passwords_of_a_parsed_address_are_masked_everywhere() -> None:
    parse_address("postgresql://me:hu5h-hu5h@h/d")
    assert hidden("failed: hu5h-hu5h") == "failed: ***"


def test_a_password_with_white_space_does_not_escape_clean() -> None:
    address = parse_address("postgresql://me:a%20%20b%0Ac@h/d")
    assert address.clean("not 'a  b\nc'\n at all") == "not '***' at all"
