"""While an epoch trains, its worker has no transaction open, and no session of a server if its epochs are long."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Connection, text

from ralr_tune.kinds.simulated.trial import SimulatedTrial
from ralr_tune.search import offline
from ralr_tune.search.session import Session
from ralr_tune.search.trial import work_on
from tests.databases import engine_of
from tests.search.conftest import MakeSession
from tests.studies import simulated
from tests.waiting import until

STATES = {
    "postgresql": "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'",
    "mysql": "SELECT IF(trx_id IS NULL, 'idle', 'idle in transaction') FROM information_schema.processlist "
    "LEFT JOIN information_schema.innodb_trx ON trx_mysql_thread_id = id "
    "WHERE db = database() AND id <> connection_id()",
}
"""Of the sessions of this database, without the one that asks."""
SETTLED_S = 5.0
"""How long a server may take to end a session that was closed."""


def states(observer: Connection) -> set[str]:
    """SQLite has no sessions: readers and writers stop a checkpoint from starting its log again."""
    if observer.dialect.name != "sqlite":
        return set(observer.scalars(text(STATES[observer.dialect.name])))
    (busy, *_) = observer.execute(text("PRAGMA wal_checkpoint(RESTART)")).one()
    return {"idle in transaction"} if busy else set()


def states_in_epochs(session: Session, observer: Connection, allowed: set[str], patch: pytest.MonkeyPatch) -> list[Any]:
    """Works on one row; what the database's sessions did while each epoch trained, once `allowed` or after a while."""
    seen, train = [], SimulatedTrial._epoch

    def epoch(trial: SimulatedTrial, index: int) -> Any:
        with suppress(AssertionError):
            until(lambda: states(observer) <= allowed, "no more than allowed", within_s=SETTLED_S, pause_s=0.01)
        seen.append(states(observer))
        return train(trial, index)

    row = session.ledger.claim("me", "search")
    assert row is not None
    with patch.context() as changed:
        changed.setattr(SimulatedTrial, "_epoch", epoch)
        work_on(session, row)
    return seen


def test_no_transaction_is_open_while_an_epoch_trains_and_no_session_while_a_long_one_does(
    make_session: MakeSession, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated(search={"pruner": "none"}), url=storage_url)
    with engine_of(storage_url) as engine, engine.connect() as observer:
        if engine.dialect.name == "sqlite":
            observer.execute(text("PRAGMA busy_timeout = 0"))
        short = states_in_epochs(session, observer, {"idle"}, monkeypatch)
        monkeypatch.setattr(offline, "KEEP_S", 0.0)
        long = states_in_epochs(session, observer, set(), monkeypatch)
    kept = set() if storage_url.startswith("sqlite") else {"idle"}
    assert short == [set(), kept, kept, kept]  # the first epoch may be long
    assert long == [set()] * 4
