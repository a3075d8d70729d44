"""A mutex across all processes and machines that share a database; it is freed when its holder dies.

PostgreSQL and MySQL have such locks (advisory locks, GET_LOCK). SQLite has none that leaves the database itself
unlocked, so a separate file next to it is locked; SQLite in WAL mode works on one machine only anyway.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, text

from ralr_tune.errors import StorageError
from ralr_tune.machine.locks import FileLock
from ralr_tune.store.address import parse_address
from ralr_tune.store.connections import begin_statement, end_transaction
from ralr_tune.store.failures import retry, storage_errors

log = logging.getLogger(__name__)

TIMEOUT_S = 300.0
"""Work under a lock takes seconds, but the holder may be suspended, or its machine disconnected."""
WARN_AFTER_S = 10.0


class Lock(Protocol):
    """The interface of the locks of all databases."""

    def acquire(self) -> bool:
        """Takes the lock and returns True, or returns False at once if another process holds it."""

    def release(self) -> None:
        """Releases the lock if it is held; otherwise does nothing."""


@contextmanager
def named_lock(engine: Engine, name: str, *, timeout_s: float = TIMEOUT_S) -> Iterator[None]:
    """Holds the lock `name` of this database. Not reentrant. StorageError if it is not free within `timeout_s`."""
    lock = _lock(engine, name)
    with storage_errors(parse_address(engine.url)):
        _wait(lock, name, timeout_s)
    try:
        yield
    finally:
        lock.release()


def _wait(lock: Lock, name: str, timeout_s: float) -> None:
    began, warned = time.monotonic(), False
    while not retry(lock.acquire):
        waited = time.monotonic() - began
        if waited > WARN_AFTER_S and not warned:
            log.warning("lock %r is held by another process; waiting for up to %g s", name, timeout_s)
            warned = True
        if waited > timeout_s:
            raise StorageError(
                f"lock {name!r} has been held by another process for {timeout_s:g} s; end that process, then try again"
            )
        # The longer it takes, the more processes wait; each try is a transaction.
        time.sleep(random.uniform(0.01, 0.05) + random.uniform(0.0, min(1.0, waited / 5)))


def _lock(engine: Engine, name: str) -> Lock:
    if engine.dialect.name == "sqlite":
        # Never lock the database file itself: closing any handle of it drops all SQLite locks of this process
        # (https://www.sqlite.org/howtocorrupt.html, 2.2).
        return FileLock(Path(f"{engine.url.database}.{name}.lock"))
    digest = hashlib.sha256(f"{engine.url.database}:{name}".encode())
    if engine.dialect.name == "postgresql":
        return TransactionLock(engine, int.from_bytes(digest.digest()[:8], "big", signed=True))
    # The lock is server-wide, so its name includes the database; names have at most 64 characters, so it is hashed.
    return SessionLock(engine, f"ralr_tune:{digest.hexdigest()[:40]}")


class TransactionLock:
    """PostgreSQL's advisory lock of a transaction, which stays open from `acquire` to `release` and does nothing else.

    A pooler such as pgbouncer may give every transaction another session: a lock of the session would stay with the
    pooler's next client.
    """

    def __init__(self, engine: Engine, key: int) -> None:
        self._engine, self._key = engine, key
        self._connection: Connection | None = None

    def acquire(self) -> bool:
        with ExitStack() as stack:
            connection = stack.enter_context(self._engine.connect())
            stack.callback(end_transaction, connection, "ROLLBACK")
            connection.exec_driver_sql(begin_statement(connection, silence_s=round(TIMEOUT_S)))
            if connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": self._key}):
                stack.pop_all()
                self._connection = connection
                return True
        return False

    def release(self) -> None:
        if self._connection is None:
            return
        with self._connection as connection:
            end_transaction(connection, "COMMIT")
        self._connection = None


class SessionLock:
    """A lock of a MySQL session: holds one connection from `acquire` to `release`."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._name = engine, name
        self._connection: Connection | None = None

    def acquire(self) -> bool:
        connection = self._engine.connect()
        if connection.scalar(text("SELECT GET_LOCK(:name, 0)"), {"name": self._name}):
            self._connection = connection
            return True
        connection.close()
        return False

    def release(self) -> None:
        if self._connection is None:
            return
        with self._connection as connection:
            end_transaction(connection, f"SELECT RELEASE_LOCK('{self._name}')")
        self._connection = None
