"""The version of a database's tables: written when they are created, raised by migrations, checked when opened.

Alembic stores it in this package's own version table (Optuna owns `alembic_version`). Its row is written last and means
that both schemas, Optuna's and this package's, are complete.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from alembic import command as alembic_command
from alembic.config import Config
from sqlalchemy import Connection, Engine, and_, column, func, insert, inspect, select, table, text

from ralr_tune.errors import StorageError
from ralr_tune.invocation import command, script
from ralr_tune.store.address import Address
from ralr_tune.store.locks import named_lock
from ralr_tune.store.tables import Now, ledger, metadata, schema

VERSION_TABLE = "ralr_tune_alembic_version"
FIRST = "0001"
"""Release 0.1, which stores its version in `ralr_tune_schema` only."""
WITH_GENERATIONS = "0003"
"""The first version that records generations."""
EARLIER = (FIRST, "0002", WITH_GENERATIONS)
"""Versions that can be migrated."""
HEAD = "0004"
"""The version that this program works with."""
READABLE = ("0002", WITH_GENERATIONS, HEAD)
"""Versions that can be read as they are, and are migrated when a worker starts: the others only lack tables."""

_version = table(VERSION_TABLE, column("version_num"))
_NOT_FIRST = 2  # in `ralr_tune_schema`: release 0.1 reads 1 and refuses anything else


def prepare(
    engine: Engine, address: Address, *, create: bool, write: bool, make_optuna_tables: Callable[[], None]
) -> str:
    """Makes sure that both schemas exist, and returns their version.

    With `create`, one process at a time creates them if they are missing. With `write`, earlier versions in `READABLE`
    are migrated. StorageError if they are missing without `create`, or have a version that this program cannot read.
    """
    found = _usable(engine, address)
    if found is None and create:
        with named_lock(engine, "create"):
            if _usable(engine, address) is None:
                _make(engine, make_optuna_tables)
        found = _usable(engine, address)
    if found is None:
        raise nothing_stored(address)
    if write and found != HEAD:
        migrate(engine, address)
        return HEAD
    return found


def version(engine: Engine) -> str | None:
    """The version of this package's tables; None if there are none or they are incomplete."""
    with engine.connect() as connection:
        there = inspect(connection)
        found = connection.scalar(select(_version.c.version_num)) if there.has_table(VERSION_TABLE) else None
        if found is None and there.has_table(schema.name) and connection.scalar(select(schema.c.version)) == 1:
            return FIRST
    return found


def migrate(engine: Engine, address: Address) -> None:
    """Migrates tables of an earlier version; does nothing if they are current. Can be killed and repeated at any point.

    StorageError while workers use them: these run the earlier program.
    """
    if version(engine) not in EARLIER:
        if _usable(engine, address) is None:
            raise nothing_stored(address)
        return
    with named_lock(engine, "create"), engine.connect() as connection:
        if version(engine) not in EARLIER:  # another process was faster
            return
        _refuse_if_in_use(connection, address)
        alembic = _alembic(connection)
        if (
            not inspect(connection).has_table(VERSION_TABLE)
            or connection.scalar(select(_version.c.version_num)) is None
        ):
            alembic_command.stamp(alembic, FIRST)
        alembic_command.upgrade(alembic, HEAD)


class Unprepared(StorageError):
    """The tables are missing or outdated; a command creates or updates them."""

    def __init__(self, address: Address, lacks: str, verb: str, does: str) -> None:
        self._lacks, self._does = f"{address}: {lacks}", does
        self.verb = verb
        """The command: "run" or "repair"."""
        super().__init__(self.message(command(verb, "STUDY", *address.arguments())))

    def message(self, typed: str) -> str:
        """The message, with the full command that helps."""
        return f"{self._lacks}; `{typed}` {self._does}"


def nothing_stored(address: Address) -> Unprepared:
    """The error for a database without this package's tables."""
    return Unprepared(address, "no study is stored there", "run", "creates one")


def outdated_optuna(address: Address, error: RuntimeError) -> StorageError:
    """The error if Optuna's tables have another version than the installed Optuna."""
    if "storage upgrade" not in str(error):  # the tables have a later version
        return StorageError(f"{address}: {error}")
    password = " (*** is the password)" if address.url.password else ""
    return StorageError(
        f"{address}: Optuna's tables have an earlier version than the installed Optuna; stop all workers, copy the "
        f"database, then type: {script('optuna')} storage upgrade --storage {shlex.quote(str(address))}{password}"
    )


def _usable(engine: Engine, address: Address) -> str | None:
    """The version of the tables if this program can read it; None if there are no tables. StorageError otherwise."""
    found = version(engine)
    if found is None or found in READABLE:
        return found
    if found in EARLIER:
        older = f"its tables are of an earlier version ({found}) than this program's ({HEAD})"
        raise Unprepared(address, older, "repair", "brings them up to date (copy the database first)")
    raise StorageError(
        f"{address}: its tables are of a later version ({found}) than this program's ({HEAD}); update ralr-tune"
    )


def _make(engine: Engine, make_optuna_tables: Callable[[], None]) -> None:
    """Can be killed and repeated at any point: each step checks what exists, and the version is written last."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(text("PRAGMA journal_mode=WAL"))  # stored in the file, set once
        make_optuna_tables()
        metadata.create_all(connection)
        for index in (index for made in metadata.sorted_tables for index in made.indexes):
            index.create(connection, checkfirst=True)  # create_all skips the indexes of tables that already exist
        if connection.scalar(select(schema.c.version)) is None:
            connection.execute(insert(schema).values(version=_NOT_FIRST))
        alembic_command.stamp(_alembic(connection), HEAD)


def _refuse_if_in_use(connection: Connection, address: Address) -> None:
    held = and_(ledger.c.state == "held", ledger.c.lease_end > Now())
    rows, ends_in_s = connection.execute(select(func.count(), func.max(ledger.c.lease_end) - Now()).where(held)).one()
    if rows:
        raise StorageError(
            f"{address}: trials still running in workers of the earlier version: {rows}; stop these workers first, or "
            f"wait until their leases expire in {max(1, round(ends_in_s))} s"
        )


def _alembic(connection: Connection) -> Config:
    config = Config()
    folder = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", folder.replace("%", "%%"))  # Config is a configparser
    config.attributes["connection"] = connection
    return config
