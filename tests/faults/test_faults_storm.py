"""A study ends with exactly its budget, whichever process is killed: see storm.py."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from tests.faults.storm import Storm, violations
from tests.studies import simulated_text

FAULTS = int(os.environ.get("RALR_TUNE_FAULTS", "300"))
"""Faults that the slow tests inject for each kind of database."""
KINDS = ("sqlite", "postgresql", "mariadb")
NO_VIOLATIONS: dict[str, list[str]] = {"lost": [], "duplicated": [], "stuck": [], "differs": []}


def simulated_study(number: int, **search: Any) -> str:
    return simulated_text(
        study={"name": f"storm{number}"},
        task={"data": {"seconds_per_epoch": 0.25}},
        training={"epochs": 16},
        search={"trials": 16, "pruner_options": {"n_startup_trials": 3}, "audit": 0.5, **search},
        storage={"lease_s": 2.0},
    )


DIGITS = """
[study]
name = "storm"
baseline = "monotone"

[task]
kind = "classification"
data = { source = "digits", limit = 400 }
model = "small_cnn"

[training]
epochs = 12
batch_size = 16
momentum = 0.9
lr = { low = 1e-3, high = 1.0, log = true }
augment = ["crop"]

[schedule]
name = "cosine"

[arms.monotone]

[arms.ralr]
amplify = { probability = { low = 0.05, high = 0.6 }, lower = 1.0, width = { low = 0.0, high = 4.0 } }

[search]
trials = 6

[confirm]
top = 1
seeds = 2

[storage]
lease_s = 2.0
"""


def test_a_few_faults(sqlite_url: str, tmp_path: Path) -> None:
    storm = Storm(sqlite_url, tmp_path, workers=2, seed=1, pause_s=(0.1, 0.3))
    for number in range(10):  # a study may end before there were enough faults
        text = simulated_text(
            study={"name": f"storm{number}"},
            task={"data": {"seconds_per_epoch": 0.1}},
            training={"epochs": 8},
            search={"trials": 4},
            confirm={"top": 1, "seeds": 2},
            storage={"lease_s": 1.0},
        )
        spec = storm.run_study(text, faults=6 - storm.stats.faults)
        assert violations(sqlite_url, spec, tmp_path) == NO_VIOLATIONS
        if storm.stats.faults == 6:
            break
    assert storm.stats.faults == 6


@pytest.mark.slow
def test_a_few_faults_while_prunings_are_audited(sqlite_url: str, tmp_path: Path) -> None:
    storm = Storm(sqlite_url, tmp_path, workers=2, seed=3, pause_s=(0.1, 0.3))
    text = simulated_text(
        study={"name": "storm"},
        task={"data": {"jitter": 0.05, "epoch_noise": 0.03, "seconds_per_epoch": 0.1}},
        training={"epochs": 8},
        search={"trials": 6, "sampler": "random", "pruner_options": {"n_startup_trials": 1}, "audit": 1},
        confirm={"top": 1, "seeds": 2},
        storage={"lease_s": 1.0},
    )
    spec = storm.run_study(text, faults=8)
    assert storm.stats.faults == 8
    assert Ledger(open_storage(sqlite_url), "storm").rows("audit")
    assert violations(sqlite_url, spec, tmp_path) == NO_VIOLATIONS


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_faults(kind: str, new_database: Callable[..., str], tmp_path: Path) -> None:
    url = new_database(kind)
    storm = Storm(url, tmp_path, workers=4, seed=2, pause_s=(0.5, 2.0))
    samplers = ("tpe", "random", "qmc")
    for number in range(1000):
        spec = storm.run_study(simulated_study(number, sampler=samplers[number % 3]), FAULTS - storm.stats.faults)
        assert violations(url, spec, tmp_path) == NO_VIOLATIONS
        if storm.stats.faults >= FAULTS:
            break
    assert set(storm.stats.counted) >= {"SIGKILL", "SIGSTOP", "SIGTERM", "SIGINT"}
    _log_result(f"simulated, {kind}", storm)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_faults_while_a_network_trains(kind: str, new_database: Callable[..., str], tmp_path: Path) -> None:
    url = new_database(kind)
    faults = max(FAULTS // 10, 3)
    storm = Storm(url, tmp_path, workers=2, seed=3, pause_s=(0.1, 0.5))
    spec = storm.run_study(DIGITS, faults)
    assert violations(url, spec, tmp_path, retrained=4) == NO_VIOLATIONS
    _log_result(f"digits, {kind}", storm)


def _log_result(title: str, storm: Storm) -> None:
    """Prints a line for the log of experiments (visible with `pytest -s`) and appends it to RALR_TUNE_FAULTS_LOG."""
    stats = storm.stats
    seconds = stats.resumed_after_s or [float("nan")]
    line = json.dumps(
        {
            "what": title,
            "faults": dict(stats.counted),
            "runs": stats.runs,
            "taken_up_s": [round(figure(seconds), 1) for figure in (min, statistics.median, max)],
        }
    )
    print(line)
    if path := os.environ.get("RALR_TUNE_FAULTS_LOG"):
        with Path(path).open("a") as log:
            log.write(f"{line}\n")
