"""One at a time, over all processes and machines that share a database: a lock that dies with its holder.

PostgreSQL and MySQL have such locks (advisory locks, GET_LOCK). SQLite has none that leaves the database free to
others meanwhile, so there a file beside it is locked; SQLite in WAL mode lives on one machine anyway.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from ralr_tune.errors import StorageError
from ralr_tune.machine.locks import FileLock
from ralr_tune.store.address import parse_address
from ralr_tune.store.failures import retry, storage_errors

log = logging.getLogger(__name__)

TIMEOUT_S = 300.0
"""What is done under a lock takes seconds; but its holder may be stopped, or its machine be gone."""
WARN_AFTER_S = 10.0


class Lock(Protocol):
    """What the three kinds of database have in common."""

    def acquire(self) -> bool:
        """Takes the lock and says True, or says False at once because another has it."""

    def release(self) -> None:
        """Gives back what was taken; nothing if nothing was."""


@contextmanager
def named_lock(engine: Engine, name: str, *, timeout_s: float = TIMEOUT_S) -> Iterator[None]:
    """Holds the lock `name` of this database. Not reentrant. StorageError if another keeps it for `timeout_s`."""
    lock = _lock(engine, name)
    with storage_errors(parse_address(engine.url)):
        _wait(lock, name, timeout_s)
    try:
        yield
    finally:
        lock.release()


def _wait(lock: Lock, name: str, timeout_s: float) -> None:
    began, said = time.monotonic(), False
    while not retry(lock.acquire):
        waited = time.monotonic() - began
        if waited > WARN_AFTER_S and not said:
            log.warning("lock %r is held by another process; waiting for up to %g s", name, timeout_s)
            said = True
        if waited > timeout_s:
            raise StorageError(f"lock {name!r} has been held by another process for {timeout_s:g} s")
        time.sleep(random.uniform(0.01, 0.05))


def _lock(engine: Engine, name: str) -> Lock:
    if engine.dialect.name == "sqlite":
        # Never on the database's own file: closing any handle of that drops SQLite's locks of the whole process
        # (https://www.sqlite.org/howtocorrupt.html, 2.2).
        return FileLock(Path(f"{engine.url.database}.{name}.lock"))
    digest = hashlib.sha256(f"{engine.url.database}:{name}".encode())
    if engine.dialect.name == "postgresql":
        key = int.from_bytes(digest.digest()[:8], "big", signed=True)
        return ServerLock(
            engine, text("SELECT pg_try_advisory_lock(:key)"), text("SELECT pg_advisory_unlock(:key)"), key
        )
    # Server-wide, so the database is part of the name; of at most 64 characters, so it is hashed.
    key_name = f"ralr_tune:{digest.hexdigest()[:40]}"
    return ServerLock(engine, text("SELECT GET_LOCK(:key, 0)"), text("SELECT RELEASE_LOCK(:key)"), key_name)


class ServerLock:
    """A lock of a session, which keeps one connection from taking to releasing it."""

    def __init__(self, engine: Engine, take: TextClause, give: TextClause, key: int | str) -> None:
        self._engine, self._take, self._give, self._key = engine, take, give, key
        self._connection: Connection | None = None

    def acquire(self) -> bool:
        connection = self._engine.connect()
        if connection.scalar(self._take, {"key": self._key}):
            self._connection = connection
            return True
        connection.close()
        return False

    def release(self) -> None:
        if self._connection is None:
            return
        with self._connection as connection:
            try:
                connection.execute(self._give, {"key": self._key})
            except SQLAlchemyError:  # the session is lost, and its locks with it; make sure of that
                connection.invalidate()
        self._connection = None
