"""Storage URLs: the driver that a URL selects, the form that Optuna needs, and the form to show (passwords masked)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ralr_tune.errors import StorageError
from ralr_tune.secrecy import MASK, remember, secret_from_environment, without

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
        return self.url.render_as_string(hide_password=False)

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

    def clean(self, text: object) -> str:
        """`text` (for example a driver's message) on one line, without any password of this address."""
        return " ".join(without(str(text), _secrets(self.url)).split())


def parse_address(url: str | URL) -> Address:
    """The address for a storage URL; the path of a SQLite file becomes absolute, so that any process can use it.

    If the URL has a user but no password, the password comes from PASSWORD_VARIABLE or its file. If neither is set,
    PostgreSQL's own client library reads PGPASSWORD and ~/.pgpass when it connects.

    StorageError for anything but the URLs in `_ALLOWED`; UsageError for a password file without a password. The message
    repeats nothing of a URL that cannot be parsed: any part of it may belong to the password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StorageError(f"the storage URL cannot be parsed; allowed: {_ALLOWED}") from None
    if "@" in (parsed.host or ""):
        raise StorageError("the storage URL has more than one '@'; in user names and passwords, write it as %40")
    parsed = _with_password(_with_file(_with_driver(parsed)))
    for secret in _secrets(parsed):
        remember(secret)
    return Address(parsed, _masked(parsed))


def sqlite_url(file: Path) -> str:
    """The storage URL of a SQLite file; its path may contain any characters."""
    return URL.create("sqlite", database=str(file)).render_as_string()


def _with_driver(url: URL) -> URL:
    backend, _, driver = url.drivername.partition("+")
    wanted = _DRIVERS.get(backend)
    if wanted is None:
        raise StorageError(f"storage URL: {backend!r} is not supported; allowed: {_ALLOWED}")
    if driver and driver != wanted.partition("+")[2]:
        raise StorageError(f"storage URL: driver {driver!r} is not supported; write {backend}://... or {wanted}://...")
    return url.set(drivername=wanted)


def _with_file(url: URL) -> URL:
    if url.get_backend_name() != "sqlite":
        if not url.database:
            raise StorageError(f"storage URL: {_masked(url)} names no database; allowed: {_ALLOWED}")
        return url
    if url.host or url.username or url.query:
        raise StorageError(
            f"storage URL: {_masked(url)} is not a file; write sqlite:///FILE (sqlite:////FILE if absolute)"
        )
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise StorageError("storage URL: SQLite needs a file that all workers share; write sqlite:///FILE")
    return url.set(database=str(Path(url.database).absolute()))


def _with_password(url: URL) -> URL:
    has_one = url.password or any(key.lower() in ("password", "passwd") for key in url.query)
    if url.get_backend_name() == "sqlite" or not url.username or has_one:
        return url
    return url.set(password=secret_from_environment(PASSWORD_VARIABLE))


def _masked(url: URL) -> str:
    masks = {key: MASK for key in url.query if key.lower() in _SECRET_OPTIONS}
    return url.update_query_dict(masks).render_as_string(hide_password=True).replace("%2A%2A%2A", MASK)


def _secrets(url: URL) -> set[str]:
    """Passwords of a URL."""
    found = {str(url.password)} if url.password else set()
    for key, value in url.query.items():
        if key.lower() in _SECRET_OPTIONS:
            found.update([value] if isinstance(value, str) else value)
    return found - {""}
