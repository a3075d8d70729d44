from __future__ import annotations

import math
from typing import Any

import pytest

from ralr_tune.errors import StorageError, StudyFileError
from ralr_tune.records import EpochRecord
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger, PlannedRow
from ralr_tune.store.reading import read_study
from ralr_tune.store.studies import ask, optuna_name, optuna_study, register, set_environment
from tests.metrics import ACCURACY
from tests.statements import executed

FILE = """
[study]
name = "digits"
metric = "accuracy"
baseline = "monotone"
seed = 0

[task]
kind = "classification"
data = { source = "digits" }
model = "small_cnn"
validation = 0.2

[training]
epochs = 12
batch_size = 64
optimizer = "sgd"
momentum = 0.9
lr = { low = 1e-3, high = 1.0, log = true }

[schedule]
name = "multistep"
milestones = [0.5, 0.75]
gamma = 0.1

[arms.ralr]
amplify = { probability = { low = 0.05, high = 0.6 }, lower = 1.0, width = { low = 0.0, high = 4.0 } }

[arms.monotone]

[search]
trials = 2
blocks = 2

[confirm]
margin = 0.01
confidence = 0.9
"""
ARMS = ("ralr", "monotone")
CURVE = (EpochRecord(epoch=1, value=0.5, train_loss=1.0, lr=0.1, factor=1.0, seconds=0.5),)


@pytest.fixture(autouse=True)
def planned(ledger: Ledger) -> None:
    """Two arms of two blocks of two trials, and a judge row; nothing claimed yet."""
    register(ledger.storage, name=ledger.study, text=FILE, fingerprint="f")
    ledger.plan(PlannedRow(arm, "search", block, n, seed=n) for block in (1, 2) for n in (0, 1) for arm in ARMS)
    ledger.plan([PlannedRow("ralr", "judge", 1, 0, seed=9, role="twin", source=1, params={"lr": 0.5})])


def start(ledger: Ledger) -> tuple[Any, Any, Any]:
    """Claims the next row and asks for its trial; the learning rate is the row's id / 100."""
    row = ledger.claim("me", "search")
    assert row is not None
    study = optuna_study(ledger.storage, optuna_name(ledger.study, row.arm, row.block), metric=ACCURACY)
    trial = ask(study, ledger.storage, row.id, {"lr": row.id / 100})
    ledger.attach(row, trial.number)
    trial.suggest_float("lr", 1e-3, 1.0, log=True)
    return row, study, trial


def test_a_study_comes_back_as_it_was_stored(ledger: Ledger) -> None:
    set_environment(ledger.storage, ledger.study, {"torch": "2.15"})
    record = read_study(ledger.storage, ledger.study)
    assert (record.name, record.spec_text, record.fingerprint) == (ledger.study, FILE, "f")
    assert (record.storage, record.environment) == (ledger.storage.masked, {"torch": "2.15"})
    assert (record.baseline, record.metric, record.margin) == ("monotone", ACCURACY, 0.01)
    assert (record.margin, record.confidence) == (0.01, 0.9)
    assert list(record.arms) == ["ralr", "monotone"]
    assert list(record.arms["monotone"].dimensions) == ["lr"]
    assert set(record.arms["ralr"].dimensions) == {"lr", "amplify.probability", "amplify.width"}
    assert record.arms["monotone"].dimensions["lr"]["high"] == 1.0
    settings = record.arms["ralr"].settings
    assert (settings["momentum"], settings["amplify.lower"]) == (0.9, 1.0)
    assert settings["amplify.width"] == record.arms["ralr"].dimensions["amplify.width"]
    assert "amplify.width" not in record.arms["monotone"].settings
    assert len(record.arms["ralr"].search()) == 4
    (twin,) = record.arms["ralr"].stage("judge", "twin")
    assert (twin.params, twin.source, twin.trial) == ({"lr": 0.5}, 1, None)


def test_search_rows_have_their_parameters_from_optuna(ledger: Ledger) -> None:
    for _ in range(6):
        row, study, trial = start(ledger)
        ledger.finish(row, outcome="complete", value=0.5, curve=CURVE, seconds=1.0)
        study.tell(trial, 0.5)
    record = read_study(ledger.storage, ledger.study)
    rows = [row for arm in record.arms.values() for row in arm.search()]
    started = [row for row in rows if row.state == "done"]
    assert len(started) == 6
    assert all(row.params == {"lr": pytest.approx(row.id / 100)} for row in started)
    assert all(row.curve == CURVE for row in started)
    assert {(row.block, row.trial) for row in started} == {(1, 0), (1, 1), (2, 0)}
    assert all((row.params, row.curve) == ({}, ()) for row in rows if row.state == "free")


def test_running_and_waiting_rows_have_their_reported_values(ledger: Ledger) -> None:
    running, _, trial = start(ledger)
    trial.report(0.25, 1)
    trial.report(0.75, 2)
    given_back, _, other = start(ledger)
    other.report(0.5, 1)
    ledger.release(given_back)
    record = read_study(ledger.storage, ledger.study)
    rows = {row.id: row for arm in record.arms.values() for row in arm.search()}
    assert [(epoch.epoch, epoch.value) for epoch in rows[running.id].curve] == [(1, 0.25), (2, 0.75)]
    assert [(epoch.epoch, epoch.value) for epoch in rows[given_back.id].curve] == [(1, 0.5)]
    assert math.isnan(rows[running.id].curve[0].train_loss)


def test_another_process_sees_the_same(ledger: Ledger) -> None:
    start(ledger)
    other = open_storage(ledger.storage.url)
    assert read_study(other, ledger.study) == read_study(ledger.storage, ledger.study)
    other.dispose()


def test_the_number_of_queries_does_not_grow_with_the_trials(ledger: Ledger) -> None:
    storage = open_storage(ledger.storage.url)
    asked = []
    for _ in range(2):
        for _ in range(2):
            start(ledger)
        with executed(storage) as queries:
            read_study(storage, ledger.study)
        asked.append(sum(not query.startswith("BEGIN") for query in queries))
    storage.dispose()
    # two on the ledger, four on the generations, and Optuna's for each of the two arms
    assert asked[0] == asked[1] <= 2 + 4 + 2 * 8


def test_missing_and_unreadable_studies_are_reported(shared: Storage, name: str) -> None:
    with pytest.raises(StorageError, match=f"no study '{name}-x'"):
        read_study(shared, f"{name}-x")
    register(shared, name=f"{name}-x", text="[study]\nnmae = 1", fingerprint="")
    with pytest.raises(StudyFileError, match=rf"{name}-x \(as stored\)"):
        read_study(shared, f"{name}-x")
