"""What a trial costs besides its training: `python -m benchmarks.orchestration` prints two tables (about two minutes).

Trials: a worker runs TRIALS trials per arm of the simulated task, whose epochs sleep and use no CPU, in a study with
DONE finished trials per arm (filled.py); TPE, and the median pruner, set so that it reads everything and prunes
nothing. Per trial, the median:

wall    from claim to tell, minus the sleep of the epochs
cpu     this process's CPU seconds: on a busy machine the better measure
at 1 s  both as a share of a trial whose epochs take a second
epoch   CPU milliseconds of one epoch: the report, the pruner, the checkpoint

Start: `run digits` in a new folder, REPEATS times.

rows    until the study is planned
claim   until a worker has claimed its first row: imports are done, the data are loaded
epoch   until the first epoch is done and reported (an upper bound of the first training step)
next    between two trials of one worker: from the end of one to the start of the next
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from benchmarks.filled import fill, study
from benchmarks.large import DATABASES, opened
from ralr_tune.records import Row
from ralr_tune.search.session import Session
from ralr_tune.search.tasks import Tasks
from ralr_tune.search.trial import work_on
from ralr_tune.store import studies
from ralr_tune.store.address import sqlite_url
from ralr_tune.store.ledger import Ledger

TRIALS = 8
DONE = 50
EPOCHS = (6, 30)
SLEPT_S = 0.02
"""Of an epoch."""
REPEATS = 3
READS_ALL = {"pruner": "median", "pruner_options": {"n_warmup_steps": 1000}}


class Cost(NamedTuple):
    """Seconds of a trial, without sleep."""

    wall: float
    cpu: float


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.orchestration", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="starts of the digits study; 0: none")
    given = parser.parse_args(arguments)
    studies.quiet_optuna()
    print("| | epochs | wall | cpu | at 1 s, wall | at 1 s, cpu | epoch |")
    print("|---|---|---|---|---|---|---|")
    for database in given.databases:
        short, long = (trial_cost(database, epochs, given.trials) for epochs in EPOCHS)
        epoch_ms = 1e3 * (long.cpu - short.cpu) / (EPOCHS[1] - EPOCHS[0])
        for epochs, cost in zip(EPOCHS, (short, long), strict=True):
            shares = " | ".join(f"{seconds / (epochs + seconds):.2%}" for seconds in cost)
            seconds = " | ".join(f"{1e3 * seconds:.0f} ms" for seconds in cost)
            print(f"| {database} | {epochs} | {seconds} | {shares} | {epoch_ms:.1f} ms |", flush=True)
    if given.repeats:
        print("\n| start | rows | claim | epoch | next |\n|---|---|---|---|---|")
        for number in range(given.repeats):
            print(f"| {number + 1} | {' | '.join(f'{seconds:.2f} s' for seconds in start_of_digits())} |", flush=True)


def trial_cost(database: str, epochs: int, trials: int) -> Cost:
    """The median trial's cost, without its sleep."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        storage = stack.enter_context(opened(stack.enter_context(DATABASES[database](folder)), create=True))
        spec = study(DONE + trials, epochs=epochs, seconds_per_epoch=SLEPT_S, **READS_ALL)
        ledger = fill(storage, spec, free=trials)
        tasks = Tasks(spec, device="cpu")
        session = Session(spec, storage, ledger, tasks, folder, "orchestration")
        costs = [_one(session) for _ in range(2 * trials)]
    # the first of each arm reads all trials and compiles every statement: large.py reports it as a worker's start
    walls, cpus = zip(*costs[2:], strict=True)
    return Cost(statistics.median(walls), statistics.median(cpus))


def _one(session: Session) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    row = session.ledger.claim(session.owner, "search")
    assert row is not None
    work_on(session, row)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(wall - sum(record.seconds for record in session.ledger.row(row.id).curve), cpu)


class Start(NamedTuple):
    """Seconds since the command."""

    rows: float
    claim: float
    epoch: float
    next: float


def start_of_digits() -> Start:
    """`run digits`, two trials per arm, one worker; only the packages are on disk."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--out", folder, "--trials", "2", "--workers", "1", "--no-confirm", "--quiet")
        began = time.time()
        command = [sys.executable, "-m", "ralr_tune", "run", "digits", *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=_alone())
        seen = {name: seconds - began for name, seconds in _watched(process, Path(folder))}
        if process.wait():
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
        rows = _rows(Path(folder))
    ordered = sorted(rows, key=lambda row: row.started or 0.0)
    gaps = [(later.started or 0.0) - (earlier.finished or 0.0) for earlier, later in pairwise(ordered)]
    return Start(seen["rows"], seen["claim"], seen["epoch"], statistics.median(gaps))


def _watched(process: subprocess.Popen[bytes], folder: Path) -> Iterator[tuple[str, float]]:
    """The times at which each event first appeared in the study's database."""
    wanted = ["rows", "claim", "epoch"]
    while wanted and process.poll() is None:
        time.sleep(0.02)
        rows = _rows(folder) if (folder / "study.db").exists() else []
        found = {
            "rows": bool(rows),
            "claim": any(row.attempt for row in rows),
            "epoch": any(row.epoch for row in rows),
        }
        for name in [name for name in wanted if found[name]]:
            wanted.remove(name)
            yield name, time.time()


def _rows(folder: Path) -> list[Row]:
    try:
        with opened(sqlite_url(folder / "study.db")) as storage:
            return Ledger(storage, "digits").rows(curves=False)
    except Exception:  # half created, or locked: the next poll reads it again
        return []


def _alone() -> dict[str, str]:
    """The environment without the user's storage."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RALR_TUNE_STORAGE")}


if __name__ == "__main__":
    main()
