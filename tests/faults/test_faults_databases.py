"""Databases that restart, and that many processes open or write at the same time."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from ralr_tune.store import studies
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger, PlannedRow
from ralr_tune.studyfile import parse_study
from tests.faults.servers import PrivateServer, private_server
from tests.faults.storm import violations
from tests.faults.test_faults_storm import NO_VIOLATIONS
from tests.metrics import ACCURACY
from tests.studies import simulated_text
from tests.waiting import LONG_S, until

ROUNDS = int(os.environ.get("RALR_TUNE_OPENINGS", "1"))
AWAY_S = float(os.environ.get("RALR_TUNE_AWAY_S", "3"))
"""How long a server stays down."""
AT_ONCE = 16


def at_once(work: Callable[[int], Any], count: int = AT_ONCE) -> list[str]:
    """Errors in `count` processes that start at the same moment; they are forked, so that none is late."""
    context = multiprocessing.get_context("fork")
    barrier, failures = context.Barrier(count), context.SimpleQueue()

    def one(index: int) -> None:
        try:
            barrier.wait(LONG_S)
            work(index)
        except BaseException as error:
            failures.put(f"{type(error).__name__}: {error}")

    processes = [context.Process(target=one, args=(index,)) for index in range(count)]
    for process in processes:
        process.start()
    found = []
    for process in processes:
        process.join(LONG_S)
        if process.exitcode != 0:
            found.append(f"exit code {process.exitcode}")
    while not failures.empty():
        found.append(failures.get())
    return found


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_many_processes_open_an_empty_database(kind: str, new_database: Callable[..., str]) -> None:
    for _ in range(ROUNDS):
        url = new_database(kind, bare=True)

        def use(index: int, url: str = url) -> None:
            storage = open_storage(url, create=True)
            studies.register(storage, name="s", text="", fingerprint="")
            studies.optuna_study(storage, "s/a", metric=ACCURACY)
            storage.dispose()

        assert at_once(use) == []
        storage = open_storage(url)
        assert studies.names(storage) == ["s"]
        storage.dispose()


def test_many_processes_write_one_sqlite_file(sqlite_url: str) -> None:
    storage = open_storage(sqlite_url)
    study = studies.optuna_study(storage, "s/a", metric=ACCURACY)
    Ledger(storage, "s").plan(PlannedRow("a", "search", 1, ordinal, seed=0) for ordinal in range(AT_ONCE * 4))
    storage.dispose()

    def write(index: int) -> None:
        mine = open_storage(sqlite_url)
        ledger, told = Ledger(mine, "s"), studies.optuna_study(mine, "s/a")
        while (row := ledger.claim(f"worker-{index}", "search")) is not None:
            trial = studies.ask(told, mine, row.id)
            trial.suggest_float("lr", 0, 1)
            ledger.attach(row, trial.number)
            for step in range(1, 6):
                ledger.renew_lease(row)
                trial.report(0.5, step)
            ledger.finish(row, outcome="complete", value=0.5, curve=(), seconds=0.0)
            told.tell(trial, 0.5)
        mine.dispose()

    assert at_once(write) == []
    storage = open_storage(sqlite_url)
    done = Ledger(storage, "s").rows()
    assert len({row.trial for row in done}) == AT_ONCE * 4
    assert all(row.attempt == 1 and row.state == "done" for row in done)
    assert len(studies.optuna_study(storage, "s/a").get_trials(deepcopy=False)) == AT_ONCE * 4
    storage.dispose()
    del study


RESTARTS: dict[str, Callable[[PrivateServer], None]] = {"stopped": PrivateServer.stop, "killed": PrivateServer.kill}


@pytest.mark.slow
@pytest.mark.parametrize("how", list(RESTARTS))
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_server_restarts_under_eight_workers(kind: str, how: str, tmp_path: Path) -> None:
    text = simulated_text(
        study={"name": "restart"},
        task={"data": {"seconds_per_epoch": 0.3}},
        training={"epochs": 20},
        search={"trials": 12},
        confirm={"top": 1, "seeds": 2},
        storage={"lease_s": 2.0},
    )
    spec = parse_study(text)
    file = tmp_path / "restart.toml"
    file.write_text(text)
    with private_server(kind, tmp_path / "server") as server:
        command = [sys.executable, "-m", "ralr_tune", "run", str(file), "--workers", "8", "--quiet"]
        run = subprocess.Popen(
            [*command, "--storage", server.url, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True
        )
        ledger = Ledger(_opened(server.url), spec.name)
        until(lambda: sum(row.state == "held" for row in ledger.rows(curves=False)) == 8, "all workers work")
        workers = {process.pid for process in psutil.Process(run.pid).children()}
        RESTARTS[how](server)
        time.sleep(AWAY_S)
        server.start()
        _, errors = run.communicate(timeout=2 * LONG_S)
        assert run.returncode == 0, errors
        assert "was killed" not in errors  # the same eight workers continued by themselves
        assert len(workers) == 8
        assert violations(server.url, spec, tmp_path / "out") == NO_VIOLATIONS
        ledger.storage.dispose()


def _opened(url: str) -> Any:
    """The storage, once `run` has created it."""
    from ralr_tune.errors import StorageError

    def found() -> Any:
        with suppress(StorageError):
            return open_storage(url)

    return until(found, "the study is stored")
