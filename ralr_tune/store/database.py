"""Opening a study's database: this package's engine, Optuna's storage, and both schemas, which are created once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    Connection,
    Delete,
    Engine,
    Insert,
    RowMapping,
    Select,
    Update,
    create_engine,
    event,
)
from sqlalchemy.exc import SQLAlchemyError

from ralr_tune.errors import StorageError
from ralr_tune.store.address import Address, parse_address
from ralr_tune.store.columns import remember_encoding
from ralr_tune.store.failures import OPEN_RETRY_S, retry, retry_for, storage_errors
from ralr_tune.store.file import WatchedFile, connect_read_only, is_writable
from ralr_tune.store.retrying import RetryingStorage
from ralr_tune.store.schema import nothing_stored, outdated_optuna, prepare
from ralr_tune.store.trials import read_params

T = TypeVar("T")

BUSY_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10
# One connection stays open, more are opened when threads need them: hundreds of workers share a server's connections.
_POOL = {"pool_size": 1, "max_overflow": 20}

SILENCE_TIMEOUT_S = 120
"""Seconds after which a server ends a silent session and frees its locks: its machine may be off, its process stopped.

A client waits just as long for an answer.
"""
_KEEPALIVE = {"idle": 30, "interval": 10, "count": 3}
"""TCP keepalive (seconds, seconds, probes): each side notices within a minute, not hours, that the other is gone."""


def _on_connect(dialect: str) -> list[str]:
    """The statements that set up every session."""
    if dialect == "sqlite":
        # NORMAL: in WAL mode, only a power failure can lose the last commits, the latest first.
        return ["PRAGMA synchronous=NORMAL"]
    if dialect == "postgresql":
        keepalives = [f"SET tcp_keepalives_{name} = {value}" for name, value in _KEEPALIVE.items()]
        return [f"SET idle_in_transaction_session_timeout = '{SILENCE_TIMEOUT_S}s'", *keepalives]
    isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
    return [isolation, "SET SESSION time_zone = '+00:00'", f"SET SESSION wait_timeout = {SILENCE_TIMEOUT_S}"]


@dataclass(frozen=True)
class Storage:
    """An open database. Threads may share it; each process opens its own."""

    engine: Engine
    optuna: BaseStorage
    """Optuna's view of the same database, with its cache: give this to `optuna.create_study` and `load_study`."""
    address: Address
    version: str
    """Of this package's tables (see schema.py)."""
    _rdb: RDBStorage = field(repr=False)

    @property
    def url(self) -> str:
        """The URL with its password and an absolute path: another process can open the same database with it."""
        return self.address.plain

    @property
    def masked(self) -> str:
        """The URL with its password masked, safe to show."""
        return self.address.masked

    def rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        """All rows of a query. StorageError if the database does not answer in spite of retries."""
        return self._run(lambda connection: connection.execute(query).mappings().all())

    def change(self, statement: Insert | Update | Delete) -> int:
        """Runs one statement in its own transaction; returns the number of rows that an UPDATE or DELETE matched.

        It is retried after a transient failure, so it must be safe to run twice. The caller handles IntegrityError.
        """
        return self._run(lambda connection: connection.execute(statement).rowcount)

    def trials(self, study_name: str, *states: TrialState) -> list[FrozenTrial]:
        """Trials of an Optuna study that are now in one of `states`, read past Optuna's cache. KeyError: no study."""
        return self._rdb.get_all_trials(self._rdb.get_study_id_from_name(study_name), deepcopy=False, states=states)

    def params(self, study_name: str, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Parameters of the trials with these numbers of an Optuna study, by number and name."""
        return self._run(lambda connection: read_params(connection, study_name, numbers))

    def dispose(self) -> None:
        """Closes all connections."""
        self._rdb.scoped_session.remove()
        self._rdb.engine.dispose()
        self.engine.dispose()

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Runs several statements in one transaction: all of them are committed, or none.

        Retried like `change`. An error that `work` raises rolls everything back.
        """
        begin = "BEGIN IMMEDIATE" if self.engine.dialect.name == "sqlite" else "BEGIN"

        def whole(connection: Connection) -> T:
            connection.exec_driver_sql(begin)
            try:
                result = work(connection)
            except BaseException:
                _roll_back(connection)
                raise
            connection.exec_driver_sql("COMMIT")
            return result

        return self._run(whole)

    def _run(self, work: Callable[[Connection], T]) -> T:
        def once() -> T:
            with self.engine.connect() as connection:
                return work(connection)

        with storage_errors(self.address):
            return retry(once)


def _roll_back(connection: Connection) -> None:
    try:
        connection.exec_driver_sql("ROLLBACK")
    except SQLAlchemyError:  # the connection is lost, and with it the transaction; close it to be certain
        connection.invalidate()


def open_storage(url: str, *, create: bool = False, write: bool = False, retry_s: float = OPEN_RETRY_S) -> Storage:
    """The database at a URL (see `address.parse_address`), ready for studies.

    With `create`, missing schemas are created, by one process at a time, and so is the folder of a SQLite file; the
    database of a server must exist. With `create` or `write`, tables are migrated if only later tables are missing. If
    a server does not answer, it is retried for `retry_s`. A SQLite file that
    cannot be written to is opened read-only. StorageError, with the password masked, if the database cannot be reached,
    has tables of another version, or is empty without `create`.
    """
    address = parse_address(url)
    _prepare_file(address, create)
    engine = make_engine(address)
    try:
        with retry_for(retry_s), storage_errors(address):
            version = retry(lambda: _prepare_schemas(engine, address, create, create or write))
            rdb = retry(lambda: _optuna(address, skip_table_creation=True))
    except BaseException:
        engine.dispose()
        raise
    return Storage(engine, get_storage(rdb), address, version, rdb)


def _prepare_file(address: Address, create: bool) -> None:
    """Checks the file before SQLite opens it: SQLite would create an empty file if there is none."""
    if address.file is None:
        return
    if address.file.exists():
        if create and not is_writable(address.file):
            raise StorageError(
                f"{address}: the file or its folder is read-only, so no study can be written to it; make both "
                "writable, or copy the file to a folder of your own and give that with --storage"
            )
        return
    if not create:
        raise nothing_stored(address)
    try:
        address.file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{address}: folder {address.file.parent} cannot be created: {error.strerror}") from error


def _prepare_schemas(engine: Engine, address: Address, create: bool, write: bool) -> str:
    def make_optuna_tables() -> None:
        _optuna(address, skip_table_creation=False).engine.dispose()

    return prepare(engine, address, create=create, write=write, make_optuna_tables=make_optuna_tables)


def make_engine(address: Address) -> Engine:
    """The ledger's engine: each statement is its own transaction, so no writer waits inside a read transaction."""
    engine = create_engine(address.url, isolation_level="AUTOCOMMIT", **_engine_options(address))
    _configure(engine)
    return engine


def _optuna(address: Address, *, skip_table_creation: bool) -> RetryingStorage:
    options = _engine_options(address)
    if address.dialect != "sqlite":
        # MySQL's default, REPEATABLE READ, locks the gaps between rows. With innodb_snapshot_isolation (MariaDB from
        # 11.6 on) it also rejects updates of rows that changed since they were read.
        options["isolation_level"] = "READ COMMITTED"
    try:
        rdb = RetryingStorage(address.for_optuna, engine_kwargs=options, skip_table_creation=skip_table_creation)
    except RuntimeError as error:  # another version of Optuna created its tables
        raise outdated_optuna(address, error) from error
    _configure(rdb.engine)
    rdb.engine.dispose()  # closes the connection that Optuna opened before its engine was configured
    return rdb


def _engine_options(address: Address) -> dict[str, Any]:
    if address.file is not None:
        if address.file.exists() and not is_writable(address.file):
            return {**_POOL, "creator": partial(connect_read_only, address.file)}
        return {**_POOL, "connect_args": {"timeout": BUSY_TIMEOUT_S}}
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
    if address.dialect == "postgresql":
        arguments |= {f"keepalives_{name}": value for name, value in _KEEPALIVE.items()}
        arguments["tcp_user_timeout"] = SILENCE_TIMEOUT_S * 1000
        arguments["client_encoding"] = "utf8"  # otherwise the database's, and psycopg gives bytes for SQL_ASCII
    else:
        arguments |= {"read_timeout": SILENCE_TIMEOUT_S, "write_timeout": SILENCE_TIMEOUT_S}
    arguments = {name: value for name, value in arguments.items() if name not in address.url.query}
    if address.dialect == "mysql" and address.url.password:
        arguments["password"] = str(address.url.password).encode()  # PyMySQL would encode it as Latin-1
    return {**_POOL, "pool_pre_ping": True, "connect_args": arguments}


def _configure(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        for statement in _on_connect(engine.dialect.name):
            cursor.execute(statement)
        cursor.close()
        if engine.dialect.name == "postgresql":
            remember_encoding(engine.dialect, connection.info.parameter_status("server_encoding") or "UTF8")
        connection.commit()  # PostgreSQL would roll SET back together with its transaction

    if engine.dialect.name == "sqlite":
        _watch(engine)


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
