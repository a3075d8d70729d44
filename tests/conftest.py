"""Fixtures for all tests: a separate database on each kind of server that this machine has, and a browser.

The variables below give the addresses of the servers; if one does not answer, its tests are skipped with the reason.
Schemas are created once per session and copied for each test.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from sqlalchemy import Engine, inspect
from sqlalchemy.engine import make_url

from ralr_tune import secrecy
from tests.waiting import LONG_S
from tests.warm.interpreter import WarmInterpreter

if TYPE_CHECKING:
    import psycopg
    import pymysql
    from playwright.sync_api import Browser

POSTGRESQL = os.environ.get("RALR_TUNE_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres")
MARIADB = os.environ.get("RALR_TUNE_TEST_MARIADB", "mysql://root@127.0.0.1:3306/mysql")
KINDS = ("sqlite", "postgresql", "mariadb")

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tests run in parallel: with more threads each, torch would wait for itself

# A shell that starts tests in the background makes them ignore SIGINT, as well as the programs that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords of one test, such as "x", must not be masked in the texts of another."""
    monkeypatch.setattr(secrecy, "_known", set())


def pytest_configure(config: pytest.Config) -> None:
    if not any(marker.startswith("slow") for marker in config.getini("markers")):
        config.addinivalue_line("markers", "slow: takes long")


class Server(Protocol):
    """Creates databases, and returns their URLs."""

    def create(self, options: str = "") -> str:
        """An empty database; `options` end the statement that makes it."""

    def copy(self) -> str:
        """A database with both schemas."""

    def close(self) -> None:
        """Drops everything that was created."""


def _with_schemas(url: str) -> str:
    from ralr_tune.store.database import open_storage

    open_storage(url, create=True).dispose()
    return url


class SQLiteFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template: Path | None = None

    def create(self, options: str = "") -> str:
        return f"sqlite:///{self._file()}"

    def copy(self) -> str:
        if self._template is None:
            self._template = self._file()
            _with_schemas(f"sqlite:///{self._template}")
        return f"sqlite:///{shutil.copy(self._template, self._file())}"

    def close(self) -> None:
        shutil.rmtree(self._folder)

    def _file(self) -> Path:
        folder = self._folder / secrets.token_hex(6)
        folder.mkdir()
        return folder / "study.db"


class PostgreSQLServer:
    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._admin = self._connect()
        self._template: str | None = None
        self._made: list[str] = []

    def create(self, options: str = "TEMPLATE template1") -> str:
        name = f"ralr_tune_test_{secrets.token_hex(6)}"
        self._admin.execute(f"CREATE DATABASE {name} {options}".encode())
        self._made.append(name)
        return self._url.set(database=name).render_as_string(hide_password=False)

    def copy(self) -> str:
        if self._template is None:
            self._template = make_url(_with_schemas(self.create())).database or ""
        return self.create(f"TEMPLATE {self._template}")

    def close(self) -> None:
        self._admin.close()
        _at_once(self._drop, self._made)

    def _drop(self, name: str) -> None:
        with self._connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def _connect(self) -> psycopg.Connection[Any]:
        import psycopg

        plain = self._url.render_as_string(hide_password=False)
        return psycopg.connect(plain, autocommit=True, connect_timeout=30)


class MariaDBServer:
    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._admin = self._connect()
        self._template: tuple[str, list[tuple[str, str]]] | None = None
        self._made: list[str] = []

    def create(self, options: str = "") -> str:
        name = f"ralr_tune_test_{secrets.token_hex(6)}"
        self._ask(f"CREATE DATABASE {name} {options}")
        self._made.append(name)
        return self._url.set(database=name).render_as_string(hide_password=False)

    def copy(self) -> str:
        """Replays the template's statements: 16 times as fast as letting SQLAlchemy inspect and create."""
        if self._template is None:
            template = make_url(_with_schemas(self.create())).database or ""
            tables = [name for (name,) in self._ask(f"SHOW TABLES IN {template}")]
            made = [(name, self._ask(f"SHOW CREATE TABLE {template}.{name}")[0][1]) for name in tables]
            self._template = (template, made)
        url = self.create()
        self._ask(f"USE {make_url(url).database}")
        self._ask("SET foreign_key_checks = 0")
        for name, statement in self._template[1]:
            self._ask(statement)
            self._ask(f"INSERT INTO {name} SELECT * FROM {self._template[0]}.{name}")
        self._ask("USE mysql")  # a test may end all sessions of its database
        return url

    def close(self) -> None:
        self._admin.close()
        _at_once(self._drop, self._made)

    def _drop(self, name: str) -> None:
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name}")

    def _connect(self) -> pymysql.Connection[Any]:
        import pymysql

        place: dict[str, Any] = {"host": self._url.host, "port": self._url.port or 3306, "user": self._url.username}
        return pymysql.connect(**place, password=self._url.password or "", autocommit=True, connect_timeout=30)

    def _ask(self, statement: str) -> list[tuple[Any, ...]]:
        with self._admin.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())


def _at_once(drop: Callable[[str], None], names: list[str]) -> None:
    """Each DROP waits for the disk; parallel ones share one wait."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(drop, names))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server | str]]:
    """Servers by kind; instead of a missing one, the reason."""
    found: dict[str, Server | str] = {"sqlite": SQLiteFolder(tmp_path_factory.mktemp("sqlite"))}
    for kind, server, url in (("postgresql", PostgreSQLServer, POSTGRESQL), ("mariadb", MariaDBServer, MARIADB)):
        try:
            found[kind] = server(url)
        except Exception as error:
            found[kind] = f"no {kind} server at {make_url(url).host}:{make_url(url).port}: {error}"
    yield found
    for server_or_reason in found.values():
        if not isinstance(server_or_reason, str):
            server_or_reason.close()


@pytest.fixture(scope="session")
def new_database(servers: dict[str, Server | str]) -> Callable[..., str]:
    """`new_database(kind)`: URL of a database with both schemas; with `bare=True` or `options`, of an empty one."""

    def new(kind: str, *, bare: bool = False, options: str = "") -> str:
        server = _server(servers, kind)
        if options:
            return server.create(options)
        return server.create() if bare else server.copy()

    return new


def _server(servers: dict[str, Server | str], kind: str) -> Server:
    server = servers[kind]
    if isinstance(server, str):
        pytest.skip(server)
    return server


@pytest.fixture(params=KINDS)
def storage_url(request: pytest.FixtureRequest, new_database: Callable[..., str]) -> str:
    """A database with both schemas and nothing in it, on each kind of server."""
    return new_database(request.param)


@pytest.fixture(params=KINDS[1:])
def server_url(request: pytest.FixtureRequest, new_database: Callable[..., str]) -> str:
    """As `storage_url`, on the kinds that are servers."""
    return new_database(request.param)


@pytest.fixture(params=KINDS)
def bare_url(request: pytest.FixtureRequest, new_database: Callable[..., str]) -> str:
    """A database without tables (SQLite: a file that does not exist yet), on each kind of server."""
    return new_database(request.param, bare=True)


@pytest.fixture
def sqlite_url(new_database: Callable[..., str]) -> str:
    """As `storage_url`, on SQLite only: for tests that need some database."""
    return new_database("sqlite")


@pytest.fixture(scope="session")
def newest_optuna_revision() -> Iterator[None]:
    """Optuna loads all its migrations whenever it opens a database, to find the newest: nine tenths of the time."""
    from optuna.storages import RDBStorage
    from optuna.storages._rdb.storage import _VersionManager

    with pytest.MonkeyPatch.context() as patch:
        newest = RDBStorage("sqlite://").get_head_version()
        patch.setattr(_VersionManager, "get_head_version", lambda manager: newest)
        yield


@pytest.fixture(scope="session")
def copied_tables(servers: dict[str, Server | str], newest_optuna_revision: None) -> Callable[..., None]:
    """Replaces `schema._make`: an empty SQLite file becomes a copy of one that has the tables."""
    from ralr_tune.store import schema

    make, template = schema._make, make_url(_server(servers, "sqlite").copy()).database or ""

    def copy(engine: Engine, make_optuna_tables: Callable[[], None]) -> None:
        if engine.dialect.name != "sqlite" or inspect(engine).get_table_names():
            make(engine, make_optuna_tables)
            return
        with closing(sqlite3.connect(template)) as made, engine.connect() as connection:
            made.backup(connection.connection.driver_connection)

    return copy


@pytest.fixture
def quick_tables(monkeypatch: pytest.MonkeyPatch, copied_tables: Callable[..., None]) -> None:
    """For tests that open many databases: creating the tables takes 0.3 s. The tests of `store` create them."""
    monkeypatch.setattr("ralr_tune.store.schema._make", copied_tables)


# ---------------------------------------------------------------- whole commands


@pytest.fixture(scope="session")
def warm_interpreter() -> Iterator[str]:
    """Replaces `sys.executable` for `-m ralr_tune`, with everything imported already: see tests/warm/interpreter.py."""
    if not hasattr(os, "pidfd_open"):  # only Linux has it
        yield sys.executable
        return
    warm = WarmInterpreter()
    yield str(warm.executable)
    warm.close()


# ---------------------------------------------------------------- a browser

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def browser_path() -> str:
    """A Chromium on this machine; without one, the test is skipped."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chrome or Chromium on this machine")
    return found


@pytest.fixture(scope="session")
def browser(browser_path: str) -> Iterator[Browser]:
    """A browser without network; one for all tests, since a process can control only one."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser_path, args=FLAGS.split(), timeout=LONG_S * 1000)
        yield opened
        opened.close()
