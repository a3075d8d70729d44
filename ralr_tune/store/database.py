"""Opening a study's database: our engine, Optuna's storage, and both schemas, which are made once."""

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
from ralr_tune.store.columns import know_encoding
from ralr_tune.store.failures import OPENING_S, patience, persist, told
from ralr_tune.store.file import WatchedFile, connect_read_only, is_writable
from ralr_tune.store.persistent import PersistentStorage
from ralr_tune.store.schema import nothing_stored, outdated_optuna, prepare

T = TypeVar("T")

BUSY_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10
# One connection is kept, more are opened when threads need them: hundreds of workers share a server's connections.
_POOL = {"pool_size": 1, "max_overflow": 20}

SILENT_S = 120
"""So long a server keeps the locks of a session that says nothing: its machine may be unplugged, its process stopped.

And so long a client waits for an answer that never comes.
"""
_KEEPALIVE = {"idle": 30, "interval": 10, "count": 3}
"""Seconds and times, as TCP has them: both sides know after a minute, not after hours, that the other one is gone."""


def _on_connect(dialect: str) -> list[str]:
    """What every session begins with."""
    if dialect == "sqlite":
        # NORMAL: in WAL mode only a power cut can lose the last commits, and it loses them in order.
        return ["PRAGMA synchronous=NORMAL"]
    if dialect == "postgresql":
        keepalives = [f"SET tcp_keepalives_{name} = {value}" for name, value in _KEEPALIVE.items()]
        return [f"SET idle_in_transaction_session_timeout = '{SILENT_S}s'", *keepalives]
    isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
    return [isolation, "SET SESSION time_zone = '+00:00'", f"SET SESSION wait_timeout = {SILENT_S}"]


@dataclass(frozen=True)
class Storage:
    """An open database. Threads may share it; processes open their own."""

    engine: Engine
    optuna: BaseStorage
    """Optuna's view of the same database, with its cache: give this to `optuna.create_study` and `load_study`."""
    address: Address
    _rdb: RDBStorage = field(repr=False)

    @property
    def url(self) -> str:
        """With the password, absolute: another process opens the same database by it."""
        return self.address.plain

    @property
    def masked(self) -> str:
        """The URL as it may be shown."""
        return self.address.masked

    def rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        """All rows of a query. StorageError if the database does not answer, however often it is asked."""
        return self._run(lambda connection: connection.execute(query).mappings().all())

    def change(self, statement: Insert | Update | Delete) -> int:
        """Runs one statement in a transaction of its own; the number of rows that an UPDATE or DELETE met.

        It is repeated after a passing failure, so it must be safe to do twice. IntegrityError is the caller's matter.
        """
        return self._run(lambda connection: connection.execute(statement).rowcount)

    def trials(self, study_name: str, *states: TrialState) -> list[FrozenTrial]:
        """Trials of an Optuna study that are in one of `states` now, past Optuna's cache. KeyError: no such study."""
        return self._rdb.get_all_trials(self._rdb.get_study_id_from_name(study_name), deepcopy=False, states=states)

    def dispose(self) -> None:
        """Closes all connections."""
        self._rdb.scoped_session.remove()
        self._rdb.engine.dispose()
        self.engine.dispose()

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Runs statements that belong together: all of them are kept, or none.

        Repeated as `change` is. A raised error takes everything back.
        """
        begin = "BEGIN IMMEDIATE" if self.engine.dialect.name == "sqlite" else "BEGIN"

        def whole(connection: Connection) -> T:
            connection.exec_driver_sql(begin)
            try:
                result = work(connection)
            except BaseException:
                _take_back(connection)
                raise
            connection.exec_driver_sql("COMMIT")
            return result

        return self._run(whole)

    def _run(self, work: Callable[[Connection], T]) -> T:
        def once() -> T:
            with self.engine.connect() as connection:
                return work(connection)

        with told(self.address):
            return persist(once)


def _take_back(connection: Connection) -> None:
    try:
        connection.exec_driver_sql("ROLLBACK")
    except SQLAlchemyError:  # the connection is gone, and the transaction with it; make sure of that
        connection.invalidate()


def open_storage(url: str, *, create: bool = False, patience_s: float = OPENING_S) -> Storage:
    """The database behind a URL (see `address.parse_address`), ready for studies.

    With `create`, both schemas are made if they are not there, by one process at a time, and so is the folder of a
    SQLite file; a server's database itself must exist. A server that does not answer is asked for `patience_s`. A
    SQLite file that cannot be written to is opened for reading.
    StorageError, its password masked, if the database cannot be reached, is none of ours, or holds nothing and `create`
    is False.
    """
    address = parse_address(url)
    _prepare_file(address, create)
    engine = make_engine(address)
    try:
        with patience(patience_s), told(address):
            persist(lambda: _prepare_schemas(engine, address, create))
            rdb = persist(lambda: _optuna(address, skip_table_creation=True))
    except BaseException:
        engine.dispose()
        raise
    return Storage(engine, get_storage(rdb), address, rdb)


def _prepare_file(address: Address, create: bool) -> None:
    """Looks before SQLite does: it makes an empty file of whatever it is asked to open."""
    if address.file is None:
        return
    if address.file.exists():
        if create and not is_writable(address.file):
            raise StorageError(
                f"{address}: cannot be written to, and neither can a study there: make file and folder writable, or "
                "copy the file to a folder of your own and give that with --storage"
            )
        return
    if not create:
        raise nothing_stored(address)
    try:
        address.file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{address}: folder {address.file.parent} cannot be made: {error.strerror}") from error


def _prepare_schemas(engine: Engine, address: Address, create: bool) -> None:
    def make_optuna_tables() -> None:
        _optuna(address, skip_table_creation=False).engine.dispose()

    prepare(engine, address, create, make_optuna_tables)


def make_engine(address: Address) -> Engine:
    """Ours: every statement is a transaction of its own, so no writer ever waits with something half read."""
    engine = create_engine(address.url, isolation_level="AUTOCOMMIT", **_engine_options(address))
    _configure(engine)
    return engine


def _optuna(address: Address, *, skip_table_creation: bool) -> PersistentStorage:
    options = _engine_options(address)
    if address.dialect != "sqlite":
        # MySQL's default, REPEATABLE READ, locks the gaps between rows, and with innodb_snapshot_isolation (MariaDB
        # from 11.6 on) fails updates of rows that changed since they were read.
        options["isolation_level"] = "READ COMMITTED"
    try:
        rdb = PersistentStorage(address.for_optuna, engine_kwargs=options, skip_table_creation=skip_table_creation)
    except RuntimeError as error:  # its tables were made by another version of Optuna
        raise outdated_optuna(address, error) from error
    _configure(rdb.engine)
    rdb.engine.dispose()  # the connection that Optuna opened before it could be configured
    return rdb


def _engine_options(address: Address) -> dict[str, Any]:
    if address.file is not None:
        if address.file.exists() and not is_writable(address.file):
            return {**_POOL, "creator": partial(connect_read_only, address.file)}
        return {**_POOL, "connect_args": {"timeout": BUSY_TIMEOUT_S}}
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
    if address.dialect == "postgresql":
        arguments |= {f"keepalives_{name}": value for name, value in _KEEPALIVE.items()}
        arguments["tcp_user_timeout"] = SILENT_S * 1000
        arguments["client_encoding"] = "utf8"  # otherwise the database's, and psycopg gives bytes for SQL_ASCII
    else:
        arguments |= {"read_timeout": SILENT_S, "write_timeout": SILENT_S}
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
            know_encoding(engine.dialect, connection.info.parameter_status("server_encoding") or "UTF8")
        connection.commit()  # PostgreSQL takes a SET back with its transaction

    if engine.dialect.name == "sqlite":
        _watch(engine)


def _watch(engine: Engine) -> None:
    """Looks after the file before SQLite opens it, and whenever a connection is used."""
    file = WatchedFile(Path(engine.url.database or ""))
    file.check()

    @event.listens_for(engine, "do_connect")
    def before_connect(*connecting: Any) -> None:
        file.check()

    @event.listens_for(engine, "checkout")
    def before_use(*connection: Any) -> None:
        file.check()
