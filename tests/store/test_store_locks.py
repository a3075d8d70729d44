from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ralr_tune.errors import StorageError
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.locks import named_lock

Together = Callable[[int, Callable[[int], Any]], list[Any]]


def test_a_lock_has_one_holder_across_processes(shared: Storage, tmp_path: Path, together: Together) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count_up(index: int) -> None:
        storage = open_storage(shared.url)
        for _ in range(5):
            with named_lock(storage.engine, "count"):
                seen = int(counter.read_text())
                time.sleep(0.002)  # long enough for a second holder to lose a count
                counter.write_text(str(seen + 1))

    together(3, count_up)
    assert counter.read_text() == "15"


def test_a_held_lock_cannot_be_taken_and_other_locks_can(shared: Storage) -> None:
    with named_lock(shared.engine, "a"), named_lock(shared.engine, "b"):
        late = named_lock(shared.engine, "a", timeout_s=0.1)
        with pytest.raises(StorageError, match=r"lock 'a' has been held by another process for 0\.1 s"):
            late.__enter__()
    with named_lock(shared.engine, "a", timeout_s=0.1):
        pass


def test_waiting_for_a_lock_is_logged(
    shared: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ralr_tune.store.locks.WARN_AFTER_S", 0.0)
    with named_lock(shared.engine, "a"), pytest.raises(StorageError):
        named_lock(shared.engine, "a", timeout_s=0.3).__enter__()
    assert caplog.messages == ["lock 'a' is held by another process; waiting for up to 0.3 s"]


def test_a_lock_is_released_after_an_error(shared: Storage) -> None:
    with pytest.raises(ValueError, match="inside"), named_lock(shared.engine, "a"):
        raise ValueError("inside")
    with named_lock(shared.engine, "a", timeout_s=0):
        pass


def test_a_lock_dies_with_its_holder(shared: Storage, together: Together) -> None:
    def leave(index: int) -> None:
        holder = named_lock(open_storage(shared.url).engine, "a")
        holder.__enter__()
        globals()["kept"] = holder  # otherwise Python would release the lock at exit

    together(1, leave)
    with named_lock(shared.engine, "a", timeout_s=60):
        pass


def test_a_lock_whose_session_was_lost_does_not_fail_the_work_under_it(server_url: str) -> None:
    storage = open_storage(server_url)
    kill = {
        "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "mysql": "KILL {}",
    }[storage.engine.dialect.name]
    with named_lock(storage.engine, "a"), storage.engine.connect() as connection:
        find = "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"
        others = connection.scalars(text(find)).all() if "KILL" in kill else [0]
        assert others
        for other in others:
            connection.execute(text(kill.format(other)))
    with named_lock(storage.engine, "a", timeout_s=60):
        pass
    storage.dispose()


def test_a_lock_that_cannot_be_tried_is_a_storage_error(sqlite: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        named_lock(sqlite.engine, "a").__enter__()


def test_a_lock_leaves_no_file_next_to_the_database(sqlite: Storage) -> None:
    folder = Path(str(sqlite.engine.url.database)).parent
    before = set(folder.iterdir())
    with named_lock(sqlite.engine, "a"):
        assert set(folder.iterdir()) != before
    assert set(folder.iterdir()) == before
