"""The SQL that a storage executes, this package's and Optuna's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from ralr_tune.store.database import Storage


@contextmanager
def executed(storage: Storage) -> Iterator[list[str]]:
    """Every statement in order; without the transactions that SQLAlchemy begins and ends by itself."""
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    # Optuna's engine for a server is a view of the other one, and passes its statements on
    engines = (storage.engine, storage._rdb.engine) if storage.address.file else (storage.engine,)
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


@contextmanager
def transactions(storage: Storage) -> Iterator[list[str]]:
    """The first statement of every transaction on PostgreSQL: BEGIN, or a statement that is one by itself."""
    import psycopg

    begun: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if connection.connection.driver_connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            begun.append(statement)

    event.listen(storage.engine, "before_cursor_execute", note)
    try:
        yield begun
    finally:
        event.remove(storage.engine, "before_cursor_execute", note)
