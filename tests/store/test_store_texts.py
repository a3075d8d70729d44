"""Ledger texts that another program wrote: the error names row and column, and no other error is raised."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from sqlalchemy import update

from ralr_tune.errors import StorageError
from ralr_tune.records import EpochRecord, MetricSeries
from ralr_tune.store import studies
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger, PlannedRow
from ralr_tune.store.tables import ledger as ledger_table
from ralr_tune.store.tables import studies as studies_table
from ralr_tune.store.texts import read_curve, read_table, read_training, training_text
from ralr_tune.training.checkpoint import curve_to_dicts
from tests.metrics import ACCURACY

CURVE = (EpochRecord(1, 0.5, float("nan"), 0.1, 1.0, 2.0), EpochRecord(2, 1, 0.1, 0.1, 1.0, 2.0))
(EPOCH,) = curve_to_dicts(CURVE[1:])

NO_JSON = ["nothing", "{", "[" * 100_000, "9" * 5000, "\0", "{'a': 1}"]
NO_TABLE = [*NO_JSON, "[]", "1", "null", '"x"']
NO_CURVE = [*NO_JSON, "{}", "1", "null", "[true]", "[{}]", "[[1, 2]]"] + [
    json.dumps([EPOCH | changed])
    for changed in ({"more": 1}, {"value": "0.5"}, {"value": None}, {"value": True}, {"value": [1]}, {"epoch": 1.0})
]


def test_texts_of_this_program_are_read() -> None:
    assert read_table('{"lr": 0.1, "optimizer": "sgd"}', "x") == {"lr": 0.1, "optimizer": "sgd"}
    assert repr(read_curve(json.dumps(curve_to_dicts(CURVE)), "x")) == repr(CURVE)
    assert (read_table(None, "x"), read_curve("", "x")) == ({}, ())


def test_other_metrics_are_stored_with_the_curve() -> None:
    metrics = (MetricSeries("f1", "epoch", 1, ((1, 0.5), (2, None))), MetricSeries("loss", "step", 4, ((3, 0.25),)))
    curve, found = read_training(training_text(CURVE[:1], metrics), "x")
    assert (repr(curve), found) == (repr(tuple(CURVE[:1])), metrics)
    assert training_text(CURVE[:1], ()) == json.dumps(curve_to_dicts(CURVE[:1]))  # as in releases that had no others
    assert read_training(training_text(CURVE[:1], ()), "x")[1] == ()


@pytest.mark.parametrize(
    "text", ['{"curve": []}', '{"curve": [], "metrics": 1}', '{"curve": [], "metrics": [{"name": 1}]}']
)
def test_other_metrics_that_this_program_did_not_write(text: str) -> None:
    with pytest.raises(StorageError, match=r"row 1: curve = .*not written by this program; allowed: "):
        read_training(text, "row 1: curve")


@pytest.mark.parametrize("text", NO_TABLE, ids=range(len(NO_TABLE)))
def test_invalid_tables_are_refused(text: str) -> None:
    with pytest.raises(StorageError, match=r"^row 1: params = .*: not written by this program; allowed: ") as raised:
        read_table(text, "row 1: params")
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("text", NO_CURVE, ids=range(len(NO_CURVE)))
def test_invalid_curves_are_refused(text: str) -> None:
    with pytest.raises(StorageError, match=r"^row 1: curve = .*: not written by this program; allowed: ") as raised:
        read_curve(text, "row 1: curve")
    assert len(str(raised.value)) < 500


@pytest.fixture
def planned(sqlite: Storage) -> Ledger:
    studies.register(sqlite, name="s", text="", fingerprint="")
    found = Ledger(sqlite, "s")
    found.plan([PlannedRow("a", "search", 1, 0, seed=0)])
    return found


@pytest.mark.parametrize("column", ["params", "curve"])
def test_a_row_with_an_invalid_text_is_named(planned: Ledger, column: str) -> None:
    planned.storage.change(update(ledger_table).values({column: "odd"}))
    with pytest.raises(StorageError, match=rf'^ledger row 1: {column} = "odd": not written by this program'):
        planned.rows()


def test_a_study_with_an_invalid_environment_is_named(planned: Ledger) -> None:
    planned.storage.change(update(studies_table).values(environment="odd"))
    with pytest.raises(StorageError, match=r'^study s: environment = "odd": not written by this program'):
        studies.stored(planned.storage, "s")


@pytest.mark.parametrize("table", ["trial_params", "trial_user_attributes"])
def test_invalid_texts_of_optuna_are_reported_with_their_database(sqlite: Storage, table: str) -> None:
    study = studies.optuna_study(sqlite, "s/a", metric=ACCURACY)
    trial = studies.ask(study, sqlite, 1)
    trial.suggest_float("lr", 0, 1)
    column: Any = {"trial_params": "distribution_json", "trial_user_attributes": "value_json"}[table]
    with sqlite.engine.connect() as connection:
        connection.exec_driver_sql(f"UPDATE {table} SET {column} = 'odd'")
    other = open_storage(sqlite.url)
    with pytest.raises(
        StorageError, match=r"sqlite.*study\.db: a text that Optuna stored was changed and is no longer JSON"
    ):
        studies.optuna_trials(other, "s/a")
    other.dispose()


def test_the_curve_of_a_running_row_holds_values_only() -> None:
    first, second = read_curve("[0.5, null]", "row 1: curve")
    assert (first.epoch, first.value, second.epoch) == (1, 0.5, 2)
    assert all(map(math.isnan, (first.seconds, first.lr, second.value)))
