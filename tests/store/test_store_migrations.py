"""Tables of earlier and later versions are recognized, refused or migrated, also under crashes and concurrency."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from optuna.storages import RDBStorage
from sqlalchemy import Engine, event, inspect, text

from ralr_tune.errors import StorageError
from ralr_tune.invocation import command, script
from ralr_tune.store import schema
from ralr_tune.store.address import parse_address
from ralr_tune.store.database import open_storage
from ralr_tune.store.tables import metadata
from tests.databases import dump, engine_of
from tests.store import first_release

Together = Callable[[int, Callable[[int], Any]], list[Any]]


@pytest.fixture
def first_url(bare_url: str) -> str:
    """A database of release 0.1 with a half-finished study, on each kind of server."""
    first_release.make(bare_url)
    return bare_url


def migrate(url: str) -> None:
    with engine_of(url) as engine:
        schema.migrate(engine, parse_address(url))


def version(url: str) -> str | None:
    with engine_of(url) as engine:
        return schema.version(engine)


def differences(url: str) -> list[Any]:
    """The changes with which Alembic would turn our tables into those of `tables.py`."""
    options = {"version_table": schema.VERSION_TABLE, "include_name": _is_ours}
    with engine_of(url) as engine, engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def _is_ours(name: str | None, kind: str, parents: Any) -> bool:
    return kind != "table" or (name or "").startswith("ralr_tune_")


def made(url: str) -> list[str]:
    """The definitions of our tables, as the server reports them."""
    with engine_of(url) as engine, engine.connect() as connection:
        names = sorted(name for name in inspect(connection).get_table_names() if name.startswith("ralr_tune_"))
        if engine.dialect.name == "mysql":
            shown = [connection.execute(text(f"SHOW CREATE TABLE {name}")).one()[1] for name in names]
            return [re.sub(r" AUTO_INCREMENT=\d+", "", table) for table in shown]
        asked = {
            "sqlite": "SELECT sql FROM sqlite_master WHERE tbl_name LIKE 'ralr_tune_%' ORDER BY name",
            "postgresql": "SELECT concat_ws(' ', table_name, column_name, data_type, character_maximum_length, "
            "is_nullable, column_default) FROM information_schema.columns WHERE table_name LIKE 'ralr_tune_%' "
            "ORDER BY table_name, ordinal_position",
        }
        return [str(line).replace("\n", "") for line in connection.scalars(text(asked[engine.dialect.name]))]


class Killed(BaseException):
    """Simulates a process that is killed here."""


def killed_at_each_write(work: Callable[[], object], between: Callable[[], object]) -> int:
    """Repeats `work` until it completes, killing it before each writing statement when that first comes; `between` is
    called after each kill. Returns the number of kills."""
    met: set[str] = set()

    def kill(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        changes = statement.lstrip().startswith(("CREATE", "INSERT", "UPDATE", "DELETE", "DROP", "ALTER"))
        if changes and statement not in met:
            met.add(statement)
            raise Killed

    event.listen(Engine, "before_cursor_execute", kill)
    try:
        while True:
            before = len(met)
            try:
                work()
            except Killed:
                between()
            if len(met) == before:
                return before
    finally:
        event.remove(Engine, "before_cursor_execute", kill)


def test_an_earlier_version_is_refused_and_left_as_it_is(first_url: str) -> None:
    before = dump(first_url)
    for create in (True, False):
        with pytest.raises(StorageError) as raised:
            open_storage(first_url, create=create)
        typed = command("repair", "STUDY", *parse_address(first_url).arguments())
        assert str(raised.value).endswith(
            f"its tables are of an earlier version (0001) than this program's (0004); `{typed}` brings them up to date "
            "(copy the database first)"
        )
    assert dump(first_url) == before


def test_a_migrated_database_keeps_every_row_and_equals_a_new_one(
    first_url: str, new_database: Callable[..., str]
) -> None:
    assert any(
        change[0] == "add_table" for change in differences(first_url)
    )  # otherwise the last line would prove nothing
    before = dump(first_url, "ralr_tune_schema")
    migrate(first_url)
    assert version(first_url) == schema.HEAD
    after = dump(first_url, "ralr_tune_schema")
    assert {name: after[name] for name in before} == before
    assert len(before["ralr_tune_ledger"]) == 8
    assert after.keys() - before.keys() == {
        "ralr_tune_incidents",
        "ralr_tune_generations",
        "ralr_tune_stores",
        "ralr_tune_artifacts",
        schema.VERSION_TABLE,
    }
    open_storage(first_url).dispose()
    new = new_database({"mysql": "mariadb"}.get(name := parse_address(first_url).dialect, name))
    assert made(first_url) == made(new)
    assert differences(first_url) == differences(new) == []


def test_a_migration_can_be_killed_at_any_point_and_repeated(first_url: str) -> None:
    before = dump(first_url)["ralr_tune_ledger"]
    seen = []
    kills = killed_at_each_write(lambda: migrate(first_url), lambda: seen.append(version(first_url)))
    assert kills >= 5  # between version table, first version, incidents, index, fence and new version
    assert set(seen) == {"0001", "0002", "0003"}
    assert version(first_url) == schema.HEAD
    assert differences(first_url) == []
    assert dump(first_url)["ralr_tune_ledger"] == before


def test_processes_that_migrate_at_once_all_succeed(first_url: str, together: Together) -> None:
    assert together(8, lambda index: migrate(first_url)) == [None] * 8
    assert version(first_url) == schema.HEAD
    assert dump(first_url)["ralr_tune_schema"] == [(2,)]


def test_migrating_again_changes_nothing_and_an_empty_database_stays_empty(bare_url: str) -> None:
    open_storage(bare_url, create=True).dispose()
    before = dump(bare_url)
    migrate(bare_url)
    assert dump(bare_url) == before
    with engine_of(bare_url) as engine, engine.connect() as connection:
        connection.execute(text(f"DROP TABLE {schema.VERSION_TABLE}"))
    with pytest.raises(StorageError, match="no study is stored there"):
        migrate(bare_url)


def test_nothing_is_migrated_while_workers_run(bare_url: str) -> None:
    first_release.make(bare_url, lease_ends_in_s=500)
    before = dump(bare_url)
    with pytest.raises(StorageError, match=r"trials still running .*: 1; stop .* first, .* expire in \d\d\d s"):
        migrate(bare_url)
    assert dump(bare_url) == before


def test_a_later_version_is_refused(storage_url: str) -> None:
    with engine_of(storage_url) as engine, engine.connect() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '0099'"))
    for refused in (lambda: open_storage(storage_url, create=True), lambda: migrate(storage_url)):
        with pytest.raises(StorageError, match=r"a later version \(0099\) than this program's \(0004\); update"):
            refused()


def test_release_0_1_is_locked_out(storage_url: str) -> None:
    """It checks for one number in one table, and treats a database without that table as empty."""
    assert dump(storage_url)["ralr_tune_schema"] == [(2,)]


def test_creation_can_be_killed_at_any_point_and_repeated(bare_url: str) -> None:
    address = parse_address(bare_url)
    RDBStorage(address.for_optuna).engine.dispose()  # creating Optuna's tables is not tested here
    seen = []
    kills = killed_at_each_write(
        lambda: open_storage(bare_url, create=True).dispose(), lambda: seen.append(version(bare_url))
    )
    assert kills >= 8  # between four tables, two indexes, fence, version table and version
    assert set(seen) == {None}
    assert differences(bare_url) == []
    assert dump(bare_url)["ralr_tune_schema"] == [(2,)]


def test_the_steps_match_the_known_versions() -> None:
    folder = Path(schema.__file__).with_name("migrations")
    steps = [step.revision for step in ScriptDirectory(str(folder)).walk_revisions()]
    assert steps[::-1] == [*schema.EARLIER, schema.HEAD]


def test_earlier_tables_of_optuna_are_refused_with_the_upgrade_command(storage_url: str) -> None:
    with engine_of(storage_url) as engine, engine.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v3.0.0.d'"))
    with pytest.raises(StorageError) as raised:
        open_storage(storage_url)
    shown = parse_address(storage_url).masked
    assert f"copy the database, then type: {script('optuna')} storage upgrade --storage {shlex.quote(shown)}" in str(
        raised.value
    )
