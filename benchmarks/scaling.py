"""What a further worker is worth: `python -m benchmarks.scaling` prints a table (about twelve minutes).

`run` of one study with 1, 2 and 4 workers on this machine, each in a new database: the simulated task, whose epochs
sleep for EPOCH_S and use no CPU, TPE, no pruning, so that the epochs to train are the same. Nothing else should run.

command      seconds of the whole command: the start of the processes, the search, the report
search       seconds from the first claim to the end of the last trial
efficiency   seconds of all epochs / (search x workers): the share of the workers' time in which they train
against 1    search of 1 worker / (search x workers): lower if workers disturb each other
between      seconds of a worker from the end of a trial to the claim of its next one: median, longest
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from benchmarks.filled import study
from benchmarks.large import DATABASES, opened
from ralr_tune.records import Row
from ralr_tune.store.ledger import Ledger

WORKERS = (1, 2, 4)
TRIALS = 8
EPOCHS = 10
EPOCH_S = 2.0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.scaling", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS, help="the first one is compared with")
    parser.add_argument("--database", choices=DATABASES, default="postgresql")
    parser.add_argument("--trials", type=int, default=TRIALS, help="of each of two arms")
    parser.add_argument("--epoch-s", type=float, default=EPOCH_S)
    given = parser.parse_args(arguments)
    print(f"| workers | command | search | efficiency | against {given.workers[0]} | between |\n{'|---' * 6}|")
    first = None
    for workers in given.workers:
        found = measured(given.database, workers, given.trials, given.epoch_s)
        first = first or found
        against = first.search_s * first.workers / (found.search_s * workers)
        print(
            f"| {workers} | {found.command_s:.1f} s | {found.search_s:.1f} s | {found.efficiency:.1%} | {against:.1%} "
            f"| {statistics.median(found.between_s):.2f} s, {max(found.between_s):.2f} s |",
            flush=True,
        )


class Scaling(NamedTuple):
    """One study with some number of workers."""

    workers: int
    command_s: float
    search_s: float
    epochs_s: float
    """Of all epochs of all trials."""
    between_s: list[float]

    @property
    def efficiency(self) -> float:
        return self.epochs_s / (self.search_s * self.workers)


def measured(database: str, workers: int, trials: int, epoch_s: float) -> Scaling:
    """`run` of one study of two arms."""
    spec = study(trials, epochs=EPOCHS, seconds_per_epoch=epoch_s, pruner="none")
    with tempfile.TemporaryDirectory() as name, DATABASES[database](Path(name)) as url:
        file = Path(name) / "scaling.toml"
        file.write_text(spec.text)
        options = ["--workers", str(workers), "--no-confirm", "--quiet", "--out", name]
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "ralr_tune", "run", str(file), *options],
            env=os.environ | {"RALR_TUNE_STORAGE": url},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        command_s = time.perf_counter() - began
        with opened(url) as storage:
            rows = Ledger(storage, spec.name).rows("search")
    claimed, ended = (min(row.started or 0.0 for row in rows), max(row.finished or 0.0 for row in rows))
    epochs_s = sum(record.seconds for row in rows for record in row.curve)
    return Scaling(workers, command_s, ended - claimed, epochs_s, _between(rows))


def _between(rows: list[Row]) -> list[float]:
    """The gaps between the trials of each worker."""
    of_workers: dict[str | None, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        of_workers[row.owner].append((row.started or 0.0, row.finished or 0.0))
    trials = (sorted(each) for each in of_workers.values())
    return [later[0] - earlier[1] for each in trials for earlier, later in pairwise(each)]


if __name__ == "__main__":
    main()
