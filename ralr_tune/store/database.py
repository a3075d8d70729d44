"""Opening a study's database: this package's engine, Optuna's storage, and both schemas, which are created once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
)

from ralr_tune.errors import StorageError
from ralr_tune.store.address import Address, parse_address
from ralr_tune.store.connections import (
    begin_statement,
    configure,
    end_transaction,
    engine_options,
    make_engine,
    resting,
)
from ralr_tune.store.failures import OPEN_RETRY_S, retry, retry_for, storage_errors
from ralr_tune.store.file import is_writable
from ralr_tune.store.retrying import RetryingStorage
from ralr_tune.store.schema import nothing_stored, outdated_optuna, prepare
from ralr_tune.store.trials import read_params

T = TypeVar("T")


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

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Inside, no connection to a server stays open: one that is needed, as to renew a lease, is closed after use.

        For the minutes of an epoch: a server allows a limited number of connections. A file has no such limit.
        """
        if self.address.file is not None:
            yield
            return
        with resting(self.engine):
            yield

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Runs several statements in one transaction: all of them are committed, or none.

        Retried like `change`. An error that `work` raises rolls everything back.
        """

        def whole(connection: Connection) -> T:
            connection.exec_driver_sql(begin_statement(connection, write=True))
            try:
                result = work(connection)
            except BaseException:
                end_transaction(connection, "ROLLBACK")
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
            rdb = retry(lambda: _optuna(address, engine, skip_table_creation=True))
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
        _optuna(address, engine, skip_table_creation=False)

    return prepare(engine, address, create=create, write=write, make_optuna_tables=make_optuna_tables)


def _optuna(address: Address, engine: Engine, *, skip_table_creation: bool) -> RetryingStorage:
    """Optuna's storage, on the connections of `engine` if it is that of a server."""
    options = engine_options(address)
    if address.file is None:
        # Its check of the tables opens a second connection inside a transaction of the first one. Through a pooler,
        # workers that open a study together would each hold a session of the server and wait for another one.
        options["isolation_level"] = "AUTOCOMMIT"
    try:
        rdb = RetryingStorage(address.for_optuna, engine_kwargs=options, skip_table_creation=skip_table_creation)
    except RuntimeError as error:  # another version of Optuna created its tables
        raise outdated_optuna(address, error) from error
    rdb.engine.dispose()  # closes the connection that Optuna opened for its check, which is not configured
    if address.file is None:
        rdb.use(engine)
    else:
        configure(rdb.engine)
    return rdb
