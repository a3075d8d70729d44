"""A study ends with exactly its budget, whichever process is killed: see storm.py."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import ralr_tune
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from tests.faults.storm import CHILD_FAULTS, Storm, violations
from tests.faults.storm import FAULTS as FAULTS_OF_WORKERS
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
    _log_result(f"simulated, {kind}", storm)
    assert set(storm.stats.counted) >= set(FAULTS_OF_WORKERS) or _are_few(FAULTS_OF_WORKERS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_faults_while_a_network_trains(kind: str, new_database: Callable[..., str], tmp_path: Path) -> None:
    url = new_database(kind)
    faults = max(FAULTS // 10, 3)
    storm = Storm(url, tmp_path, workers=2, seed=3, pause_s=(0.1, 0.5))
    spec = storm.run_study(DIGITS, faults)
    assert violations(url, spec, tmp_path, retrained=4) == NO_VIOLATIONS
    _log_result(f"digits, {kind}", storm)


# ---------------------------------------------------------------- people's own training code

OWN_KINDS = ("command", "function")
OWN_FAULTS = (*FAULTS_OF_WORKERS, *CHILD_FAULTS, *CHILD_FAULTS)  # those of programs twice: they are cheaper


def own_study(kind: str, name: str, folder: Path, **changes: dict[str, Any]) -> str:
    """A study of own_training.py, which is copied into the folder; its three stages are short."""
    program = folder / "own_training.py"
    shutil.copy(Path(__file__).with_name(program.name), program)
    command = [sys.executable, "-S", str(program), str(Path(ralr_tune.__file__).parents[1])]
    of_kind = {"command": {"command": command, "files": [str(program)]}, "function": {"target": "own_training:train"}}
    tables: dict[str, dict[str, Any]] = {
        "study": {"name": name, "baseline": "monotone"},
        "task": {
            "kind": kind,
            "metric": {"name": "score", "direction": "maximize", "worst": 0.0, "unit": "share"},
            "params": {"width": {"choices": [1, 2]}, "study": name},
            "grace": 0.5,
            **of_kind[kind],
        },
        "training": {"epochs": 8, "lr": {"low": 0.01, "high": 1.0, "log": True}},
        "schedule": {"name": "cosine"},
        "arms": {"monotone": {}, "ralr": {"amplify": {"probability": 0.5, "lower": 1.0, "width": 1.0}}},
        "search": {"trials": 8, "pruner_options": {"n_startup_trials": 3}, "audit": 0.5},
        "confirm": {"top": 1, "seeds": 3},
        "storage": {"lease_s": 2.0},
    }
    return tomli_w.dumps({key: table | changes.get(key, {}) for key, table in tables.items()})


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files with a short path: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("kind", [pytest.param("command", marks=pytest.mark.slow), "function"])
def test_a_few_faults_of_programs(
    kind: str, sqlite_url: str, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    short = {"training": {"epochs": 5}, "search": {"trials": 1, "audit": 0}, "confirm": {"top": 1, "seeds": 2}}
    text = own_study(kind, "storm", tmp_path, **short, storage={"lease_s": 1.0})
    storm = Storm(sqlite_url, tmp_path, workers=1, seed=1, pause_s=(0.1, 0.3), faults=CHILD_FAULTS, temporary=temporary)
    spec = storm.run_study(text, faults=5)
    assert violations(sqlite_url, spec, tmp_path, retrained=6, temporary=temporary) == NO_VIOLATIONS
    assert storm.stats.faults == 5


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("kind", OWN_KINDS)
def test_many_faults_of_programs(
    kind: str,
    database: str,
    new_database: Callable[..., str],
    tmp_path: Path,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    url = new_database(database)
    storm = Storm(url, tmp_path, workers=4, seed=4, pause_s=(0.2, 1.0), faults=OWN_FAULTS, temporary=temporary)
    for number in range(1000):
        spec = storm.run_study(own_study(kind, f"storm{number}", tmp_path), FAULTS - storm.stats.faults)
        assert violations(url, spec, tmp_path, temporary=temporary) == NO_VIOLATIONS
        if storm.stats.faults >= FAULTS:
            break
    misbehaviour = Counter((tmp_path / "misbehaviour.log").read_text().splitlines())
    _log_result(f"{kind}, {database}", storm, misbehaviour=dict(sorted(misbehaviour.items())))
    assert set(storm.stats.counted) >= set(OWN_FAULTS) or _are_few(OWN_FAULTS)
    shown = {"wrong messages", "out of order", "reported again", "started another process"}
    assert set(misbehaviour) >= shown or number < 2  # drawn by the program: about four of each in a study


def _are_few(kinds: Sequence[str]) -> bool:
    """Whether the faults may not suffice for every kind: they come in rotation, and a few strike `run` instead."""
    return 2 * len(kinds) > FAULTS


def _log_result(title: str, storm: Storm, **more: Any) -> None:
    """Prints a line for the log of experiments (visible with `pytest -s`) and appends it to RALR_TUNE_FAULTS_LOG."""
    stats = storm.stats
    seconds = stats.resumed_after_s or [float("nan")]
    line = json.dumps(
        {
            "what": title,
            "faults": dict(stats.counted),
            "runs": stats.runs,
            "taken_up_s": [round(figure(seconds), 1) for figure in (min, statistics.median, max)],
            **more,
        }
    )
    print(line)
    if path := os.environ.get("RALR_TUNE_FAULTS_LOG"):
        with Path(path).open("a") as log:
            log.write(f"{line}\n")
