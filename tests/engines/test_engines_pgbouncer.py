"""Workers whose connections lead to a transaction-pooling pgbouncer: fewer sessions of the server than workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

import ralr_tune
from ralr_tune.store import studies
from ralr_tune.store.connections import pooled
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger, PlannedRow
from ralr_tune.store.locks import named_lock
from ralr_tune.store.tables import studies as studies_table
from ralr_tune.studyfile import parse_study
from tests.databases import engine_of
from tests.engines.pgbouncer import Pooler, pgbouncer
from tests.faults.storm import violations
from tests.faults.test_faults_storm import NO_VIOLATIONS
from tests.metrics import ACCURACY
from tests.studies import simulated_text

SESSIONS = 2
"""Of the server: one is the lock's while a stage is planned."""
WORKERS = 4

pytestmark = pytest.mark.usefixtures("newest_optuna_revision")


@pytest.fixture(scope="module")
def pooler(new_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    new_database("postgresql", bare=True)  # skips without a server
    with pgbouncer(tmp_path_factory.mktemp("pgbouncer") / "files", size=SESSIONS) as running:
        yield running


@pytest.fixture
def direct(new_database: Callable[..., str]) -> str:
    """A database with both schemas, by its own address."""
    return new_database("postgresql")


@pytest.fixture
def storages(pooler: Pooler, direct: str) -> Iterator[list[Storage]]:
    """Two workers' storages through the pooler."""
    opened = [open_storage(pooler.through(direct)) for _ in range(2)]
    yield opened
    for storage in opened:
        storage.dispose()


def others_on_server(url: str) -> int:
    """Sessions that the server has for a database, without the one that asks."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    )
    with engine_of(url) as engine, engine.connect() as connection:
        return connection.scalar(text(query)) or 0


def test_a_pooler_is_noticed_and_a_server_is_not_taken_for_one(storages: list[Storage], direct: str) -> None:
    own = open_storage(direct)
    found = []
    for storage in (*storages, own):
        with storage.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            found.append((pooled(connection), driver.prepare_threshold))
    own.dispose()
    assert found == [(True, None), (True, None), (False, 5)]


def test_sessions_of_the_pooler_keep_no_statements_settings_or_locks_of_a_client(storages: list[Storage]) -> None:
    for storage in storages * 8:  # psycopg prepares a statement after five uses
        storage.rows(select(studies_table))
        with named_lock(storage.engine, "a"):
            pass
    left = {
        "prepared": "SELECT count(*) FROM pg_prepared_statements",
        "locks": "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())",
        "timeout": "SELECT current_setting('idle_in_transaction_session_timeout')",
    }
    with storages[0].engine.connect() as connection:
        assert {name: connection.scalar(text(query)) for name, query in left.items()} == {
            "prepared": 0,
            "locks": 0,
            "timeout": "0",
        }


def test_a_transaction_that_falls_silent_ends_by_itself(storages: list[Storage]) -> None:
    def timeout(connection: Any) -> object:
        return connection.scalar(text("SELECT current_setting('idle_in_transaction_session_timeout')"))

    study = studies.optuna_study(storages[0], "s/a", metric=ACCURACY)
    with storages[0]._rdb.scoped_session() as session:
        optunas = timeout(session)
    assert (storages[0].transact(timeout), optunas, study.study_name) == ("2min", "2min", "s/a")


def test_a_lock_has_one_holder_through_the_pooler(storages: list[Storage]) -> None:
    inside, seen = [0], []

    def count(storage: Storage) -> None:
        for _ in range(5):
            with named_lock(storage.engine, "count"):
                inside[0] += 1
                seen.append(inside[0])
                storage.rows(select(studies_table))
                inside[0] -= 1

    threads = [threading.Thread(target=count, args=(storage,)) for storage in storages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 10


def test_claims_through_the_pooler_give_each_row_once(storages: list[Storage]) -> None:
    ledgers = [Ledger(storage, "s") for storage in storages]
    ledgers[0].plan(PlannedRow("a", "search", 1, ordinal, seed=0) for ordinal in range(6))
    claimed = [ledgers[number % 2].claim(f"w{number}", "search") for number in range(7)]
    assert [row and row.ordinal for row in claimed] == [*range(6), None]


def test_a_study_of_more_workers_than_sessions_keeps_every_guarantee(
    pooler: Pooler, direct: str, tmp_path: Path
) -> None:
    file = tmp_path / "pooled.toml"
    file.write_text(
        simulated_text(
            study={"name": "pooled"},
            task={"data": {"seconds_per_epoch": 0.01}},
            training={"epochs": 4},
            search={"trials": 3, "sampler": "random"},
            confirm={"top": 1, "seeds": 2},
        )
    )
    ralr_tune.run(
        file,
        storage=pooler.through(direct),
        out=tmp_path / "out",
        workers=WORKERS,
        launcher="inprocess",
        progress=False,
    )
    sessions = others_on_server(direct)  # before the next line opens further ones
    assert violations(direct, parse_study(file.read_text()), tmp_path / "out", retrained=2) == NO_VIOLATIONS
    assert 1 <= sessions <= SESSIONS


def test_a_pooler_that_is_restarted_is_waited_for(pooler: Pooler, storages: list[Storage]) -> None:
    storages[0].rows(select(studies_table))
    pooler.kill()
    again = threading.Timer(0.5, pooler.start)
    again.start()
    assert storages[0].rows(select(studies_table)) == []
    again.join()
