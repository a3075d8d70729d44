"""The connections to a database: how they are opened and set up, how transactions begin, when they are closed.

A process has one engine for a server, which Optuna's storage uses, too: one connection, a second one while a thread
renews a lease or a lock is held, none while it rests (see `resting`). All its connections are in autocommit mode, where
a single statement is a transaction of one round trip; longer transactions begin with a statement of their own.

A connection may lead to a pooler such as pgbouncer, which gives every transaction another session of the server. So a
session has no state but the timeouts set here, which a pooler sets by itself; locks last no longer than a transaction;
and statements are prepared in sessions of one's own only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from ralr_tune.store.address import Address
from ralr_tune.store.columns import remember_encoding
from ralr_tune.store.file import WatchedFile, connect_read_only, is_writable

BUSY_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10
_POOL = {"pool_size": 1, "max_overflow": 20}
"""One connection stays open, more are opened when threads need them at the same time."""

SILENCE_TIMEOUT_S = 120
"""Seconds after which a server ends a silent session and frees its locks: its machine may be off, its process stopped.

A client waits just as long for an answer.
"""
_KEEPALIVE = {"idle": 30, "interval": 10, "count": 3}
"""TCP keepalive (seconds, seconds, probes): each side notices within a minute, not hours, that the other is gone."""

_PREPARE_AFTER = 5
"""psycopg's own default: it prepares a statement in the session after that many uses."""

_POOLED = "ralr_tune:pooled"
_at_rest: WeakSet[Engine] = WeakSet()
"""Engines that keep no connection."""


def make_engine(address: Address) -> Engine:
    """The engine of a database: each statement is its own transaction, so no writer waits inside a read transaction."""
    engine = create_engine(address.url, isolation_level="AUTOCOMMIT", **engine_options(address))
    configure(engine)
    return engine


def engine_options(address: Address) -> dict[str, Any]:
    """Arguments for `create_engine`. There is no ping before use: every call is retried if its connection is lost."""
    if address.file is not None:
        if address.file.exists() and not is_writable(address.file):
            return {**_POOL, "creator": partial(connect_read_only, address.file)}
        return {**_POOL, "connect_args": {"timeout": BUSY_TIMEOUT_S}}
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
    if address.dialect == "postgresql":
        arguments |= {f"keepalives_{name}": value for name, value in _KEEPALIVE.items()}
        arguments["tcp_user_timeout"] = SILENCE_TIMEOUT_S * 1000
        arguments["client_encoding"] = "utf8"  # otherwise the database's, and psycopg gives bytes for SQL_ASCII
        arguments["prepare_threshold"] = None
    else:
        arguments |= {"read_timeout": SILENCE_TIMEOUT_S, "write_timeout": SILENCE_TIMEOUT_S}
    arguments = {name: value for name, value in arguments.items() if name not in address.url.query}
    if address.dialect == "mysql" and address.url.password:
        arguments["password"] = str(address.url.password).encode()  # PyMySQL would encode it as Latin-1
    return {**_POOL, "connect_args": arguments}


def configure(engine: Engine) -> None:
    """Sets up every connection that the engine opens."""
    set_up = {"sqlite": _set_up_sqlite, "postgresql": _set_up_postgresql, "mysql": _set_up_mysql}[engine.dialect.name]

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        set_up(engine, connection, record)

    @event.listens_for(engine, "checkin")
    def after_use(connection: Any, record: Any) -> None:
        if engine in _at_rest:
            record.close()

    if engine.dialect.name == "sqlite":
        _watch(engine)


def _set_up_sqlite(engine: Engine, connection: Any, record: Any) -> None:
    # NORMAL: in WAL mode, only a power failure can lose the last commits, the latest first.
    connection.execute("PRAGMA synchronous=NORMAL").close()


def _set_up_postgresql(engine: Engine, connection: Any, record: Any) -> None:
    """In a session of one's own only: a pooler reports a process id of its own, and others use its sessions, too."""
    timeouts = {"idle_in_transaction_session_timeout": f"{SILENCE_TIMEOUT_S}s"}
    timeouts |= {f"tcp_keepalives_{name}": str(value) for name, value in _KEEPALIVE.items()}
    calls = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in timeouts.items())
    own = connection.execute(f"SELECT {calls} WHERE pg_backend_pid() = {connection.info.backend_pid:d}").fetchone()
    record.info[_POOLED] = own is None
    connection.prepare_threshold = None if own is None else _PREPARE_AFTER
    remember_encoding(engine.dialect, connection.info.parameter_status("server_encoding") or "UTF8")


def _set_up_mysql(engine: Engine, connection: Any, record: Any) -> None:
    # REPEATABLE READ, the default, locks the gaps between rows. With innodb_snapshot_isolation (MariaDB from 11.6 on)
    # it also rejects updates of rows that changed since they were read.
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute(f"SET SESSION time_zone = '+00:00', wait_timeout = {SILENCE_TIMEOUT_S}")


def pooled(connection: Connection) -> bool:
    """Whether this connection leads to a pooler such as pgbouncer, and not to PostgreSQL itself."""
    return bool(connection.info.get(_POOLED))


def begin_statement(connection: Connection, *, write: bool = False, silence_s: int | None = None) -> str:
    """The SQL that begins a transaction. `silence_s`: when PostgreSQL ends it if nothing is sent; None: as sessions do.

    `write`: SQLite waits for its lock now, since it cannot wait for it after a read.
    """
    dialect = connection.dialect.name
    if dialect == "sqlite":
        return "BEGIN IMMEDIATE" if write else "BEGIN"
    if dialect == "mysql":
        return "BEGIN"
    begin = "BEGIN ISOLATION LEVEL READ COMMITTED"
    if silence_s is None and not pooled(connection):
        return begin
    silence = f"{silence_s or SILENCE_TIMEOUT_S}s"
    return f"{begin}; SET LOCAL idle_in_transaction_session_timeout = '{silence}'"  # one round trip


def end_transaction(connection: Connection, statement: str) -> None:
    """Ends a transaction or gives up a lock; if the session is lost, both went with it."""
    try:
        connection.exec_driver_sql(statement)
    except SQLAlchemyError:
        connection.invalidate()  # to be certain


def with_transactions(engine: Engine) -> Engine:
    """The same connections for code that begins transactions implicitly, as Optuna's ORM does."""
    view = engine.execution_options()

    @event.listens_for(view, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin_statement(connection))

    return view


@contextmanager
def resting(engine: Engine) -> Iterator[None]:
    """Closes the idle connections of an engine; inside, each connection is closed after use."""
    _at_rest.add(engine)
    engine.dispose()
    try:
        yield
    finally:
        _at_rest.discard(engine)


def _watch(engine: Engine) -> None:
    """Checks the file before SQLite opens it and before every use of a connection."""
    file = WatchedFile(Path(engine.url.database or ""))
    file.check()

    @event.listens_for(engine, "do_connect")
    def before_connect(*connecting: Any) -> None:
        file.check()

    @event.listens_for(engine, "checkout")
    def before_use(*connection: Any) -> None:
        file.check()
