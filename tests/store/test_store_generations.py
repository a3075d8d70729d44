"""Generations: their rows and Optuna studies are kept apart, and what each of them read is stored."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from ralr_tune.errors import StorageError
from ralr_tune.records import Identity, Inventory, SourceFile, SplitInventory
from ralr_tune.store import generations, schema, studies
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger, PlannedRow
from tests.databases import engine_of

READ = Identity(
    Inventory("folder gatos", ("gato", "niño"), (SplitInventory("train", "x", (2, 3), "l", "d"),)),
    (SourceFile("task.model", "module nets", ("a", "b")),),
    ({"torch": "2.11"},),
)


@pytest.fixture
def storage(storage_url: str) -> Storage:
    opened = open_storage(storage_url, create=True)
    studies.register(opened, name="sim", text="first text", fingerprint="1")
    return opened


def plan(storage: Storage) -> Ledger:
    ledger = Ledger(storage, "sim")
    ledger.plan([PlannedRow("ralr", "search", 1, ordinal, seed=ordinal) for ordinal in range(2)])
    return ledger


def test_the_first_generation_is_stored_as_before(storage: Storage) -> None:
    ledger = plan(storage)
    assert (ledger.generation, ledger.key, ledger.optuna_name("ralr", 2)) == (1, "sim", "sim/ralr#2")
    (only,) = generations.every(storage, "sim")
    assert (only.number, only.identity, only.trials) == (1, None, 0)
    assert generations.identity(storage, "sim", 1) is None


def test_rows_of_generations_are_kept_apart(storage: Storage) -> None:
    first = plan(storage)
    claimed = first.claim("box:1:0", "search")
    generations.record(storage, "sim", 1, Identity())
    generations.begin(storage, "sim", 2, READ)
    studies.update_text(storage, "sim", text="second text", fingerprint="2")
    second = plan(storage)
    assert claimed is not None
    assert second.optuna_name("ralr") == "sim/ralr@2"
    assert second.optuna_name("ralr", 3) == "sim/ralr@2#3"
    assert [row.attempt for row in first.rows()] == [1, 0]
    assert [row.attempt for row in second.rows()] == [0, 0]
    assert {row.id for row in first.rows()}.isdisjoint(row.id for row in second.rows())
    first.release(claimed)  # a worker of the first generation still owns its row
    one, two = generations.every(storage, "sim")
    assert (one.number, one.trials, two.number, two.trials) == (1, 1, 2, 0)
    assert two.identity == READ
    assert storage.rows(text("SELECT text, fingerprint FROM ralr_tune_generations ORDER BY number")) == [  # type: ignore[arg-type]
        {"text": "first text", "fingerprint": "1"},
        {"text": None, "fingerprint": None},
    ]


def test_what_a_generation_read_is_stored_and_replaced(storage: Storage) -> None:
    generations.record(storage, "sim", 1, Identity())
    generations.record(storage, "sim", 1, READ)
    assert generations.identity(storage, "sim", 1) == READ
    assert generations.newest(storage, "sim") == 1


def test_beginning_a_generation_twice_changes_nothing(storage: Storage) -> None:
    for _ in range(2):
        generations.begin(storage, "sim", 2, READ)
    assert [each.number for each in generations.every(storage, "sim")] == [1, 2]


def test_a_text_that_this_program_did_not_write_is_refused(storage: Storage) -> None:
    generations.record(storage, "sim", 1, READ)
    with storage.engine.connect() as connection:
        connection.execute(text("""UPDATE ralr_tune_generations SET identity = '{"late": "many"}'"""))
    with pytest.raises(StorageError, match="what generation 1 read: not written by this program"):
        generations.identity(storage, "sim", 1)


def test_tables_of_the_previous_version_are_read_as_they_are_and_migrated_by_a_writer(storage_url: str) -> None:
    open_storage(storage_url, create=True).dispose()
    with engine_of(storage_url) as engine, engine.begin() as connection:
        connection.execute(text("DROP TABLE ralr_tune_generations"))
        connection.execute(text("UPDATE ralr_tune_alembic_version SET version_num = '0002'"))
    reader = open_storage(storage_url)
    studies.register(reader, name="sim", text="t", fingerprint="1")
    assert reader.version == "0002"
    assert Ledger(reader, "sim").generation == 1
    assert [each.identity for each in generations.every(reader, "sim")] == [None]
    reader.dispose()
    writer = open_storage(storage_url, write=True)
    assert writer.version == schema.HEAD
    generations.record(writer, "sim", 1, READ)
    assert generations.identity(writer, "sim", 1) == READ
    writer.dispose()
