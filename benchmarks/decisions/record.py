"""Records tables of real training runs: `python -m benchmarks.decisions.record digits` (or `cifar --data FILE`).

May be stopped and killed at any time: finished runs are in the table after at most SAVE_S seconds, and the next call
continues. Runs are trained by this package's own engine, as a worker trains them, seed by seed over all configurations
of both arms. `--minutes` ends after a time, `--status` only says what is done.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.decisions.tables import ARMS, FOLDER, Plan, Table, plan_of
from ralr_tune.errors import RalrTuneError, TrialError, UsageError
from ralr_tune.machine.locks import FileLock
from ralr_tune.search.tasks import Tasks

SAVE_S = 20.0
"""Seconds between two saves (our choice): a save rewrites the table, which may take 0.1 s."""

Key = tuple[int, int, int]
"""(arm, configuration, seed)."""


class Run(NamedTuple):
    """One finished run."""

    key: Key
    curve: npt.NDArray[np.float32]
    """(E,); NaN from the epoch on in which it diverged."""
    seconds: float
    """Of CPU."""


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.decisions.record", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", help="a name in benchmarks/decisions/tables: digits, cifar")
    parser.add_argument("--data", help="path of the data of a table that needs one (cifar: cifar100.npz)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after this time")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--status", action="store_true", help="only say what is done")
    given = parser.parse_args(arguments)
    try:
        if given.minutes <= 0 or given.workers < 1:
            raise UsageError(f"--minutes {given.minutes:g} --workers {given.workers}: must be above 0")
        plan = plan_of(given.table, given.data, folder)
        if not given.status:
            check_data(plan)
            record(plan, minutes=given.minutes, workers=given.workers)
        print(status(Table.of(plan)))
    except RalrTuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def check_data(plan: Plan) -> None:
    """Raises UsageError if the plan's file of data does not exist."""
    path = plan.tables["task"]["data"].get("path")
    if path is not None and not Path(path).is_file():
        raise UsageError(f"--data {path}: no such file; {plan.name} needs the file that CONTRIBUTING.md describes")


def record(plan: Plan, *, minutes: float, workers: int) -> None:
    """Trains what is not done, until all is, time is up, or a signal asks to stop.

    Raises UsageError if another process records this table.
    """
    lock = FileLock(plan.values_file.with_suffix(".lock"))
    if not lock.acquire():
        raise UsageError(f"table {plan.name}: another process records it")
    until = time.monotonic() + 60 * minutes
    try:
        with stopping() as stop:
            _record(Table.of(plan), workers, lambda: time.monotonic() < until and not stop.is_set())
    finally:
        lock.release()


def _record(table: Table, workers: int, goes_on: Callable[[], bool]) -> None:
    environment = _environment()
    if environment not in table.recorded_with:
        table.recorded_with.append(environment)
    saved = time.monotonic()
    try:
        for run in _trained(table.plan, table.waiting(), workers, goes_on):
            table.add(run.key, run.curve, run.seconds)
            if time.monotonic() > saved + SAVE_S:
                table.save()
                saved = time.monotonic()
    except BrokenProcessPool:
        raise TrialError(
            "lost", "a process that trained was killed; finished runs are saved, repeat to go on"
        ) from None
    finally:
        table.save()


@contextmanager
def stopping() -> Iterator[Event]:
    """An event that SIGINT and SIGTERM set: runs in training end and are saved. A second signal ends the process."""
    stop = Event()

    def ask(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _trained(plan: Plan, keys: Sequence[Key], workers: int, goes_on: Callable[[], bool]) -> Iterator[Run]:
    """The runs, in the order in which they end; once it does not go on, those that have begun."""
    as_given = (plan.file, plan.data)
    context = multiprocessing.get_context("spawn")  # a forked process would inherit torch's threads
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(as_given,)) as pool:
        waiting, running = iter(keys), set[Future[Run]]()
        while True:
            if goes_on():  # no run waits in the pool, so that a stop takes one run
                running |= {pool.submit(_train, as_given, key) for key in islice(waiting, workers - len(running))}
            if not running:
                return
            ended, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            yield from (each.result() for each in ended)


def _begin(plan: tuple[Path, str | None]) -> None:
    """Loads the data before the first run, so that no run's time contains it."""
    import torch

    for number in (signal.SIGINT, signal.SIGTERM):  # both may reach the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _loaded(plan)


def _end_with_parent() -> None:
    """A pool's processes do not notice that their parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@cache
def _loaded(plan: tuple[Path, str | None]) -> tuple[Plan, Tasks]:
    """A plan and its data, in this process. A plan that was read cannot be sent to another process."""
    read = Plan(*plan)
    tasks = Tasks(read.spec, device="cpu")
    tasks.first()
    return read, tasks


def _train(plan: tuple[Path, str | None], key: Key) -> Run:
    read, tasks = _loaded(plan)
    return train(read, tasks, key)


def train(plan: Plan, tasks: Tasks, key: Key) -> Run:
    """One whole run."""
    arm, configuration, seed = key
    began, spec = time.process_time(), plan.spec
    resolved = spec.configuration(ARMS[arm], plan.params[arm][configuration])
    trial = spec.kind.trial(tasks.of(resolved.task), resolved, seed=plan.seed(seed))
    curve = np.full(resolved.training.epochs, np.nan, np.float32)
    try:
        for epoch in trial.epochs():
            curve[epoch.epoch - 1] = epoch.value
    except TrialError as error:
        if error.kind != "diverged":
            raise
    return Run(key, curve, time.process_time() - began)


def status(table: Table) -> str:
    """One line: runs done, complete seeds, and how long the rest takes."""
    done, runs = int(table.done.sum()), table.done.size
    line = (
        f"{table.plan.name}: {done:,} of {runs:,} runs, {table.complete_seeds} of {table.done.shape[2]} seeds complete"
    )
    if not done:
        return line
    mean = float(table.seconds[table.done].mean())
    return f"{line}; {mean:.1f} CPU s a run, {(runs - done) * mean / 3600:.1f} CPU hours left"


def _environment() -> str:
    import torch

    return f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
