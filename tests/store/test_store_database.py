from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import psutil
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy import Connection, event, insert, inspect, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from ralr_tune.errors import StorageError
from ralr_tune.store import connections
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.schema import VERSION_TABLE
from ralr_tune.store.tables import Now, metadata, schema, studies
from tests.waiting import LONG_S, until

Together = Callable[[int, Callable[[int], Any]], list[Any]]

NASTY = "p{a}s%s@:/ ?#&+ü'"


def test_creates_both_schemas(bare_url: str) -> None:
    storage = open_storage(bare_url, create=True)
    tables = set(inspect(storage.engine).get_table_names())
    assert tables >= {*metadata.tables, "studies", "trials", "alembic_version"}
    optuna.create_study(study_name="x", storage=storage.optuna)
    assert optuna.get_all_study_names(storage.optuna) == ["x"]
    storage.dispose()


def test_processes_that_create_at_once_all_succeed(bare_url: str, together: Together) -> None:
    def create(index: int) -> int:
        storage = open_storage(bare_url, create=True)
        found = len(storage.rows(select(schema)))
        optuna.create_study(study_name="x", storage=storage.optuna, load_if_exists=True)
        storage.dispose()
        return found

    assert together(8, create) == [1] * 8


def test_creation_that_was_killed_halfway_is_completed(bare_url: str) -> None:
    storage = open_storage(bare_url, create=True)
    with storage.engine.connect() as connection:
        connection.execute(text(f"DELETE FROM {VERSION_TABLE}"))
        connection.execute(text("DROP TABLE ralr_tune_ledger"))
        connection.execute(text("DELETE FROM alembic_version"))
    storage.dispose()
    with pytest.raises(StorageError, match="no study is stored there"):
        open_storage(bare_url)
    storage = open_storage(bare_url, create=True)
    assert inspect(storage.engine).has_table("ralr_tune_ledger")
    storage.dispose()


def test_nothing_is_created_unless_requested(bare_url: str) -> None:
    with pytest.raises(StorageError, match="no study is stored there"):
        open_storage(bare_url)
    file = make_url(bare_url).database if bare_url.startswith("sqlite") else None
    assert file is None or not os.path.exists(file)


def test_optuna_tables_of_another_version_are_refused(storage: Storage, storage_url: str) -> None:
    with storage.engine.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9.9.9'"))
    with pytest.raises(StorageError, match="no longer compatible"):
        open_storage(storage_url)


def test_opens_a_database_that_optuna_created(bare_url: str) -> None:
    first = open_storage(bare_url, create=True)
    with first.engine.connect() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(text(f"DROP TABLE {table.name}"))
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
    optuna.create_study(study_name="theirs", storage=first.optuna)
    first.dispose()
    storage = open_storage(bare_url, create=True)
    assert optuna.get_all_study_names(storage.optuna) == ["theirs"]
    storage.dispose()


def test_the_clock_is_in_seconds_since_1970_and_moves_within_a_second(shared: Storage) -> None:
    before = time.time()
    ticks = [shared.rows(select(Now().label("now")))[0]["now"] for _ in range(20)]
    assert all(isinstance(tick, float) for tick in ticks)
    assert before - 0.1 <= ticks[0] <= ticks[-1] <= time.time() + 0.1
    assert any(tick % 1 for tick in ticks)
    assert ticks[-1] > ticks[0]


def stored_texts(storage: Storage, name: str) -> list[str]:
    return [found["text"] for found in storage.rows(select(studies.c.text).where(studies.c.name == name))]


def test_every_statement_is_its_own_transaction(shared: Storage, name: str) -> None:
    other = open_storage(shared.url)
    with shared.engine.connect() as connection:
        connection.execute(insert(studies).values(name=name, text="t", fingerprint="", created=0.0))
        assert stored_texts(other, name) == ["t"]
    other.dispose()


def test_changes_count_matched_rows_even_if_values_stay_the_same(shared: Storage, name: str) -> None:
    shared.change(insert(studies).values(name=name, text="t", fingerprint="", created=0.0))
    assert shared.change(update(studies).where(studies.c.name == name).values(text="t")) == 1


def test_long_and_foreign_texts_survive(shared: Storage, name: str) -> None:
    long = "ä€𝄞" * 50_000
    shared.change(insert(studies).values(name=name, text=long, fingerprint="", created=0.0))
    assert stored_texts(shared, name) == [long]


def test_names_that_differ_in_case_are_different(shared: Storage, name: str) -> None:
    for text_, spelt in (("small", name), ("large", name.upper())):
        shared.change(insert(studies).values(name=spelt, text=text_, fingerprint="", created=0.0))
    assert stored_texts(shared, name) == ["small"]


@pytest.fixture
def password_url(server_url: str) -> Iterator[str]:
    """The same database, with a user whose password has characters special to URLs, str.format and ini files."""
    url = make_url(server_url)
    user = f"ralr_{secrets.token_hex(4)}"
    admin = open_storage(server_url)
    with admin.engine.connect() as connection:
        if url.get_backend_name() == "mysql":
            connection.execute(text(f"CREATE USER {user} IDENTIFIED BY :password"), {"password": NASTY})
            connection.execute(text(f"GRANT ALL ON {url.database}.* TO {user}"))
        else:  # the test server accepts every password
            connection.execute(text(f"CREATE ROLE {user} LOGIN SUPERUSER"))
    yield f"{url.get_backend_name()}://{user}:{quote(NASTY, safe='')}@{url.host}:{url.port}/{url.database}"
    with admin.engine.connect() as connection:
        connection.execute(text(f"DROP USER {user}"))
    admin.dispose()


def test_password_with_braces_opens_and_is_never_shown(password_url: str) -> None:
    storage = open_storage(password_url, create=True)
    optuna.create_study(study_name="x", storage=storage.optuna)
    again = open_storage(storage.url)
    shown = f"{storage!r} {storage.masked} {storage.engine!r} {again!r}"
    storage.dispose()
    again.dispose()
    assert ":***@" in shown
    assert NASTY not in shown
    assert quote(NASTY, safe="") not in shown


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:hush@127.0.0.1:1/db", "refused"),
        ("mysql://me:hush@127.0.0.1:1/db", "refused"),
        ("postgresql://postgres:hush@127.0.0.1:5432/not_there", "not_there"),
        ("mysql://me:hush@127.0.0.1:3306/not_there", "denied"),
    ],
)
def test_unreachable_is_one_line_without_password(url: str, said: str) -> None:
    with pytest.raises(StorageError) as raised:
        open_storage(url, create=True, retry_s=1)
    message = str(raised.value)
    assert "\n" not in message
    assert "hush" not in message
    assert ":***@127.0.0.1" in message
    if "refused" not in message:  # otherwise this machine has no such server
        assert said in message


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("something else, longer than SQLite's header of a hundred bytes" * 9)
    before = (tmp_path / "x.db").read_bytes()
    with pytest.raises(StorageError, match="not a database"):
        open_storage(f"sqlite:///{tmp_path}/x.db", create=True)
    assert (tmp_path / "x.db").read_bytes() == before


def test_sqlite_creates_its_folder_or_says_why_it_cannot(tmp_path: Path) -> None:
    open_storage(f"sqlite:///{tmp_path}/a/b/x.db", create=True).dispose()
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["x.db"]  # no lock or WAL file is left
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"folder .*file/sub cannot be created: "):
        open_storage(f"sqlite:///{tmp_path}/file/sub/x.db", create=True)


def test_sqlite_path_with_braces(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/{{a}}/x.db", create=True)
    optuna.create_study(study_name="x", storage=storage.optuna)
    storage.dispose()
    assert (tmp_path / "{a}" / "x.db").exists()


def test_sqlite_waits_for_writers_and_reads_while_they_write(sqlite: Storage) -> None:
    for engine in (sqlite.engine, sqlite._rdb.engine):
        with engine.connect() as connection:
            pragmas = [connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "busy_timeout")]
            assert pragmas == ["wal", 60_000]
            assert connection.scalar(text("PRAGMA synchronous")) == 1


def test_isolation_is_the_same_on_every_server(server_url: str) -> None:
    storage = open_storage(server_url)
    asked = {"postgresql": "SHOW transaction_isolation", "mysql": "SELECT @@tx_isolation"}
    for engine in (storage.engine, storage._rdb.engine):
        with engine.connect() as connection:
            found = connection.scalar(text(asked[engine.dialect.name]))
            assert found.lower().replace("-", " ") == "read committed"
    storage.dispose()


def test_lost_connections_are_reopened(server_url: str) -> None:
    """The server ends all our sessions; the next statements, ours and Optuna's, still succeed."""
    storage = open_storage(server_url)
    name = storage.engine.dialect.name
    optuna.create_study(study_name="x", storage=storage.optuna)
    storage.rows(select(studies))
    find = {
        "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'",  # autovacuum has sessions, too
        "mysql": "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
    }[name]
    kill = {"postgresql": "SELECT pg_terminate_backend({})", "mysql": "KILL {}"}[name]
    other = open_storage(storage.url)
    with other.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # one session is ours and Optuna's; that of a test before may take a moment to end
        until(lambda: len(connection.scalars(text(find)).all()) == 1, "a single session")
        (session,) = connection.scalars(text(find))
        connection.execute(text(kill.format(session)))
    other.dispose()
    assert storage.rows(select(studies)) == []
    assert optuna.get_all_study_names(storage.optuna) == ["x"]
    storage.dispose()


def test_a_process_that_stops_in_a_transaction_keeps_its_locks_for_a_while_only(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates a machine that was disconnected. When the process continues, it repeats its transaction."""
    monkeypatch.setattr(connections, "SILENCE_TIMEOUT_S", 2)
    storage = open_storage(server_url)
    storage.change(insert(studies).values(name="x", text="", fingerprint="", created=0.0))
    storage.dispose()

    def write() -> None:
        mine, begun = open_storage(server_url), []

        def slowly(connection: Connection) -> None:
            connection.execute(update(studies).values(fingerprint="mine"))
            begun.append(connection)
            if len(begun) == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
            connection.execute(update(studies).values(text="whole"))

        mine.transact(slowly)
        assert len(begun) == 2

    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    try:
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "it stops")
        storage.change(update(studies).values(environment="others go on"))
        assert stored_texts(storage, "x") == [""]
        assert storage.rows(select(studies.c.fingerprint))[0]["fingerprint"] == ""
    finally:
        os.kill(process.pid or 0, signal.SIGCONT)
    process.join(LONG_S)
    assert process.exitcode == 0
    assert stored_texts(storage, "x") == ["whole"]
    storage.dispose()


def test_both_sides_notice_soon_that_the_other_machine_is_gone(server_url: str) -> None:
    """Neither waits for hours, as TCP does by default. (The test reads the settings; no machine is disconnected.)"""
    storage = open_storage(server_url)
    for engine in (storage.engine, storage._rdb.engine):
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            if engine.dialect.name == "postgresql":
                asked = driver.info.get_parameters()
                assert (asked["keepalives_idle"], asked["tcp_user_timeout"]) == ("30", "120000")
                assert connection.scalar(text("SHOW tcp_keepalives_idle")) == "30"
                assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "2min"
            else:
                assert (driver._read_timeout, driver._write_timeout) == (120, 120)
                assert connection.scalar(text("SELECT @@wait_timeout")) == 120
    storage.dispose()
    own = "keepalives_idle=5" if server_url.startswith("postgresql") else "read_timeout=5"
    storage = open_storage(f"{server_url}?{own}")
    with storage.engine.connect() as connection:
        driver = connection.connection.driver_connection
        asked = driver.info.get_parameters() if own.startswith("keep") else {"keepalives_idle": driver._read_timeout}
        assert str(asked["keepalives_idle"]) == "5"  # the URL's value has priority
    storage.dispose()


def test_a_transient_failure_of_optuna_is_retried(sqlite: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(study_name="x", storage=sqlite.optuna)
    trial = study.ask()
    failures = iter([True, True, False])
    monkeypatch.setattr("ralr_tune.store.failures.time.sleep", lambda pause: None)

    @event.listens_for(sqlite._rdb.engine, "before_cursor_execute")
    def fail(*call: Any) -> None:
        if "trial_intermediate_values" in call[2] and next(failures, False):
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise OperationalError(call[2], {}, error)

    trial.report(0.5, 1)
    assert study.trials[0].intermediate_values == {1: 0.5}
    assert next(failures, None) is None


def test_a_permanent_failure_of_optuna_is_a_storage_error(sqlite: Storage) -> None:
    study = optuna.create_study(study_name="x", storage=sqlite.optuna)
    trial = study.ask()
    with sqlite.engine.connect() as connection:
        connection.execute(text("DROP TABLE trial_intermediate_values"))
    with pytest.raises(StorageError, match="no such table: trial_intermediate_values"):
        trial.report(0.5, 1)


def test_a_permanent_failure_of_a_ledger_statement_is_a_storage_error(storage: Storage) -> None:
    with storage.engine.connect() as connection:
        connection.execute(text("DROP TABLE ralr_tune_studies"))
    with pytest.raises(StorageError, match="ralr_tune_studies"):
        storage.rows(select(studies))


def test_the_same_final_state_may_be_set_twice_but_no_other(sqlite: Storage) -> None:
    study = optuna.create_study(study_name="x", storage=sqlite.optuna)
    trial_id = study.ask()._trial_id
    assert sqlite.optuna.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    assert sqlite.optuna.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    with pytest.raises(UpdateFinishedTrialError):
        sqlite.optuna.set_trial_state_values(trial_id, TrialState.FAIL)
