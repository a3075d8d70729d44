"""Databases are measured and left unchanged."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import event, text

from ralr_tune.errors import StorageError
from ralr_tune.store import probing, schema
from ralr_tune.store.probing import ask, check_usable, connections
from tests.databases import dump, engine_of


def test_probing_a_database_leaves_no_changes(storage_url: str) -> None:
    before = dump(storage_url)
    answer = ask(storage_url)
    assert dump(storage_url) == before
    assert any(name in answer.server for name in ("SQLite", "PostgreSQL", "MariaDB", "MySQL"))
    assert 0 < answer.read_s < 10
    assert answer.write_s is not None
    assert 0 < answer.write_s < 10
    check_usable(storage_url)


def test_servers_report_clock_and_connections_and_sqlite_its_journal(storage_url: str) -> None:
    answer = ask(storage_url)
    if storage_url.startswith("sqlite"):
        assert (answer.journal, answer.ahead_s, answer.connections) == ("wal", None, None)
    else:
        assert answer.journal is None
        assert answer.ahead_s is not None
        assert abs(answer.ahead_s) < 5
        assert answer.connections is not None
        assert 0 <= answer.connections.used < answer.connections.allowed
        assert connections(storage_url) is not None
    assert not answer.pooled


def test_a_clock_that_is_ahead_is_seen(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr("ralr_tune.store.probing.time.time", lambda: real() - 100)
    ahead_s = ask(server_url).ahead_s
    assert ahead_s is not None
    assert 95 < ahead_s < 105


def test_without_tables_nothing_is_written_or_created(bare_url: str) -> None:
    if bare_url.startswith("sqlite"):
        Path(bare_url.removeprefix("sqlite:///")).touch()
    assert ask(bare_url).write_s is None
    assert dump(bare_url) == {}
    with pytest.raises(StorageError, match="no study is stored there"):
        check_usable(bare_url)


def test_a_read_only_database_is_reported(storage_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With each database's own way to make connections read-only."""
    read_only = {
        "sqlite": "PRAGMA query_only = 1",
        "postgresql": "SET default_transaction_read_only = on",
        "mysql": "SET SESSION TRANSACTION READ ONLY",
    }
    make = probing.make_engine

    def closed(address: object) -> object:
        engine = make(address)  # type: ignore[arg-type]

        @event.listens_for(engine, "connect")
        def on_connect(connection: object, record: object) -> None:
            connection.cursor().execute(read_only[engine.dialect.name])  # type: ignore[attr-defined]

        return engine

    monkeypatch.setattr(probing, "make_engine", closed)
    with pytest.raises(StorageError, match=r"(?i)read.?only"):
        ask(storage_url)


def test_probing_does_not_wait_long_for_a_busy_file(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "BUSY_S", 0)
    with engine_of(sqlite_url) as engine, engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked"):
            ask(sqlite_url)
        connection.exec_driver_sql("ROLLBACK")


def test_tables_of_another_version_are_not_usable(sqlite_url: str) -> None:
    with engine_of(sqlite_url) as engine, engine.connect() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '0099'"))
    assert ask(sqlite_url).write_s is not None
    with pytest.raises(StorageError, match="later version"):
        check_usable(sqlite_url)
