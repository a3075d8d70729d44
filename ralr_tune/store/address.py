"""Storage URLs: the driver that a URL selects, the form that Optuna needs, and the form to show (passwords masked)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ralr_tune.errors import UsageError
from ralr_tune.invocation import Variable, relative_to_cwd
from ralr_tune.machine.home import expand_home
from ralr_tune.secrecy import MASK, remember, secret_from_environment, without
from ralr_tune.store.location import STORAGE_VARIABLE

PASSWORD_VARIABLE = "RALR_TUNE_STORAGE_PASSWORD"
"""The password of a storage URL that has a user but no password; with _FILE appended, the file that holds it."""

# MariaDB uses SQLAlchemy's mysql dialect: Optuna checks for that name when it chooses its upsert.
_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
}
_OTHER_DRIVERS = {
    "sqlite": {"aiosqlite"},
    "postgresql": {"psycopg2", "psycopg2cffi", "psycopg_async", "asyncpg", "pg8000"},
    "mysql": {"mysqldb", "mysqlconnector", "mariadbconnector", "aiomysql", "asyncmy", "cymysql"},
}
"""SQLAlchemy's other drivers of the same servers: a URL that names one means the same database."""
_ENCODINGS = {"postgresql": ("client_encoding", "utf8"), "mysql": ("charset", "utf8mb4")}
"""The option of a URL that says how text is sent, and the one value that can send any text."""
_ALLOWED = "sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DATABASE, mysql://... or mariadb://..."
_SECRET_OPTIONS = {"password", "passwd", "sslpassword"}


@dataclass(frozen=True)
class Address:
    """One database. Its `repr` and `str` hold no password."""

    url: URL = field(repr=False)
    masked: str

    def __str__(self) -> str:
        return self.masked

    @property
    def plain(self) -> str:
        """The URL with its password, percent-encoded: for connections, never for display."""
        return _rendered(self.url)

    @property
    def for_optuna(self) -> str:
        """`plain` with its braces doubled, since Optuna passes every storage URL through `str.format`."""
        return self.plain.replace("{", "{{").replace("}", "}}")

    @property
    def dialect(self) -> str:
        """ "sqlite", "postgresql" or "mysql" (MariaDB too)."""
        return self.url.get_backend_name()

    @property
    def file(self) -> Path | None:
        """The database's file, absolute; None for a server."""
        return Path(self.url.database) if self.dialect == "sqlite" and self.url.database else None

    def arguments(self) -> tuple[str | Variable, ...]:
        """`--storage` as it may be typed to mean this database: by its variable, or with the password masked."""
        if self == _of_environment():
            return "--storage", Variable(STORAGE_VARIABLE)
        if self.file is not None:
            return "--storage", sqlite_url(relative_to_cwd(self.file))
        return "--storage", self.masked.replace(self.url.drivername, self.dialect, 1)

    def clean(self, text: object) -> str:
        """`text` (for example a driver's message) on one line, without any password of this address."""
        return " ".join(without(str(text), _secrets(self.url)).split())


def parse_address(url: str | URL) -> Address:
    """The address for a storage URL; the path of a SQLite file becomes absolute, so that any process can use it.

    A path that begins with ~ means a home folder, as in a shell. Other drivers of a server are replaced by this
    package's driver. If the URL has a user but no password, the password comes from PASSWORD_VARIABLE or its file. If
    neither is set, PostgreSQL's own client library reads PGPASSWORD and ~/.pgpass when it connects.

    UsageError for anything but the URLs in `_ALLOWED`, and for a password file without a password. The message names
    what gave the URL, and repeats nothing of a URL that cannot be parsed: any part of it may belong to the password.
    """
    try:
        parsed = _with_file(_with_driver(_parsed(url)))
    except _WrongUrl as error:
        raise UsageError(f"{_giver(url)}: {error}") from None
    parsed = _with_password(parsed)
    for secret in _secrets(parsed):
        remember(secret)
    return Address(parsed, _masked(parsed))


class _WrongUrl(Exception):
    """What is wrong with a storage URL, without what gave it."""


def _giver(url: str | URL) -> str:
    """What a storage URL is corrected in: its variable, otherwise the option or the study file."""
    return STORAGE_VARIABLE if url == os.environ.get(STORAGE_VARIABLE) else "storage URL (--storage, or storage.url)"


def _parsed(url: str | URL) -> URL:
    if isinstance(url, str) and not url.startswith("sqlite") and re.search("[\udc80-\udcff]", url):
        raise _WrongUrl("is not UTF-8 text; percent-encode what is not ASCII (é is %C3%A9)")
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _WrongUrl(f"cannot be parsed; allowed: {_ALLOWED}") from None
    if "@" in (parsed.host or ""):
        raise _WrongUrl("has more than one '@'; in user names and passwords, write it as %40")
    return parsed


def _of_environment() -> Address | None:
    """The address that STORAGE_VARIABLE means, if it is set to one."""
    try:
        return parse_address(os.environ[STORAGE_VARIABLE])
    except (KeyError, UsageError):
        return None


def sqlite_url(file: Path) -> str:
    """The storage URL of a SQLite file; its path may contain any characters."""
    return _rendered(URL.create("sqlite", database=str(file)))


def _rendered(url: URL, *, hide_password: bool = False) -> str:
    """The URL as a text that `parse_address` reads."""
    try:
        return url.render_as_string(hide_password=hide_password)
    except UnicodeEncodeError:  # a path that is not UTF-8; its bytes stay unchanged (PEP 383)
        path = re.sub("[^\udc80-\udcff]+", lambda part: quote(part[0], safe=" +/"), url.database or "")
        return f"{url.drivername}:///{path}"


def _with_driver(url: URL) -> URL:
    backend, _, driver = url.drivername.partition("+")
    wanted = _DRIVERS.get(backend)
    if wanted is None:
        raise _WrongUrl(f"{backend!r} is not supported; allowed: {_ALLOWED}")
    dialect, _, own = wanted.partition("+")
    if driver not in ("", own, *_OTHER_DRIVERS[dialect]):
        raise _WrongUrl(f"driver {driver!r} is not supported; write {backend}://... or {wanted}://...")
    option, value = _ENCODINGS.get(dialect, ("", ""))
    return url.set(drivername=wanted).update_query_dict({option: value} if option in url.query else {})


def _with_file(url: URL) -> URL:
    if url.get_backend_name() != "sqlite":
        if not url.database:
            raise _WrongUrl(f"{_masked(url)} names no database; allowed: {_ALLOWED}")
        return url
    if url.host or url.username or url.query:
        raise _WrongUrl(f"{_masked(url)} is not a file; write sqlite:///FILE (sqlite:////FILE if absolute)")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise _WrongUrl("SQLite needs a file that all workers share; write sqlite:///FILE")
    try:
        return url.set(database=str(expand_home(url.database).absolute()))
    except ValueError as error:
        raise _WrongUrl(f"{error}") from None


def _with_password(url: URL) -> URL:
    if url.get_backend_name() == "sqlite" or not url.username:
        return url
    if url.password == MASK:  # as this program printed it
        return url.set(password=secret_from_environment(PASSWORD_VARIABLE) or MASK)
    has_one = url.password or any(key.lower() in ("password", "passwd") for key in url.query)
    return url if has_one else url.set(password=secret_from_environment(PASSWORD_VARIABLE))


def _masked(url: URL) -> str:
    masks = {key: MASK for key in url.query if key.lower() in _SECRET_OPTIONS}
    return _rendered(url.update_query_dict(masks), hide_password=True).replace("%2A%2A%2A", MASK)


def _secrets(url: URL) -> set[str]:
    """Passwords of a URL."""
    found = {str(url.password)} if url.password else set()
    for key, value in url.query.items():
        if key.lower() in _SECRET_OPTIONS:
            found.update([value] if isinstance(value, str) else value)
    return found - {""}
