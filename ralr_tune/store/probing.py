"""Measures how a database responds, for `doctor`; leaves no changes in it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from sqlalchemy import Connection, Engine, insert, inspect, select, text

from ralr_tune.store.address import Address, parse_address
from ralr_tune.store.connections import make_engine, pooled
from ralr_tune.store.database import open_storage
from ralr_tune.store.failures import storage_errors
from ralr_tune.store.tables import Now, studies

READS, WRITES = 20, 5
BUSY_S = 5
"""How long to wait for SQLite while other processes write."""

_SERVER = {
    "sqlite": "SELECT 'SQLite ' || sqlite_version()",
    "postgresql": "SELECT 'PostgreSQL ' || current_setting('server_version')",
    "mysql": "SELECT version()",
}
_USED = {
    "postgresql": "SELECT 'used', count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'",
    "mysql": "SHOW STATUS LIKE 'Threads_connected'",
}
_ALLOWED = {
    "postgresql": "SELECT current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int",
    "mysql": "SELECT @@max_connections",
}


@dataclass(frozen=True)
class Connections:
    """The connections of a server."""

    used: int
    allowed: int
    """To all its users but administrators."""

    @property
    def free(self) -> int:
        return max(0, self.allowed - self.used)


@dataclass(frozen=True)
class Answer:
    """What a database reports about itself, and how quickly; times in seconds."""

    server: str
    read_s: float
    """Median of a round trip."""
    write_s: float | None
    """Median of a transaction that writes and is rolled back; None if there are no tables yet."""
    ahead_s: float | None
    """The database's clock minus this machine's; None if they are the same clock (SQLite)."""
    connections: Connections | None
    """None if there is no limit (SQLite), or only that of a pooler, which does not say it."""
    journal: str | None
    """SQLite's journal mode."""
    pooled: bool = False
    """Whether the address leads to a pooler such as pgbouncer."""


def ask(url: str) -> Answer:
    """Measures the database at a URL. StorageError if it cannot be reached, read or written to.

    A SQLite file must exist: connecting would create it.
    """
    address = parse_address(url)
    engine = make_engine(address)
    try:
        with storage_errors(address), engine.connect() as connection:
            return _answer(engine, connection, address)
    finally:
        engine.dispose()


def connections(url: str) -> Connections | None:
    """The connections of the server at a URL, without counting this one; None as in `Answer`. StorageError if it
    cannot be reached."""
    address = parse_address(url)
    if address.file is not None:
        return None
    engine = make_engine(address)
    try:
        with storage_errors(address), engine.connect() as connection:
            return _connections(connection, address)
    finally:
        engine.dispose()


def check_usable(url: str) -> None:
    """StorageError, with the fix, if studies cannot be opened there: no tables, or tables of another version."""
    open_storage(url).dispose()


def _answer(engine: Engine, connection: Connection, address: Address) -> Answer:
    sqlite = address.dialect == "sqlite"
    if sqlite:
        connection.execute(text(f"PRAGMA busy_timeout = {BUSY_S * 1000}"))
    has_tables = inspect(connection).has_table(studies.name)
    return Answer(
        server=_server(connection, address),
        read_s=median(_seconds(lambda: connection.scalar(text("SELECT 1"))) for _ in range(READS)),
        write_s=median(_seconds(lambda: _write(connection, sqlite)) for _ in range(WRITES)) if has_tables else None,
        ahead_s=None if sqlite else _ahead_s(connection),
        connections=None if sqlite else _connections(connection, address),
        journal=connection.scalar(text("PRAGMA journal_mode")) if sqlite else None,
        pooled=pooled(connection),
    )


def _server(connection: Connection, address: Address) -> str:
    server = str(connection.scalar(text(_SERVER[address.dialect])))
    return server if address.dialect != "mysql" or "MariaDB" in server else f"MySQL {server}"


def _write(connection: Connection, sqlite: bool) -> None:
    """Insert a row and roll it back, so that no other process sees it."""
    row = insert(studies).values(name=f"doctor-{secrets.token_hex(8)}", text="", fingerprint="", created=0.0)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else "BEGIN")
    try:
        connection.execute(row)
    finally:
        connection.exec_driver_sql("ROLLBACK")


def _ahead_s(connection: Connection) -> float:
    """Measured from the middle of the fastest of 5 round trips."""

    def once() -> tuple[float, float]:
        before = time.time()
        there = float(connection.scalar(select(Now())) or 0.0)
        after = time.time()
        return after - before, there - (before + after) / 2

    return min(once() for _ in range(5))[1]


def _connections(connection: Connection, address: Address) -> Connections | None:
    if pooled(connection):
        return None
    used = connection.execute(text(_USED[address.dialect])).one()[1]
    return Connections(int(used) - 1, int(connection.scalar(text(_ALLOWED[address.dialect])) or 0))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
