"""What a database answers under many workers: `python -m benchmarks.load` prints a table (about six minutes).

8 to 256 real workers (`launch.worker.work`, forked after the imports), two trials each of the simulated task, whose
epochs sleep for a second (`--epoch-s`) and use no CPU; random sampler, and the median pruner, set so that it reads
everything and prunes nothing. The workers begin together, spread over one epoch. A database of its own on the server of
RALR_TUNE_TEST_POSTGRESQL (max_connections must allow the workers), dropped afterwards; everything shares one machine.

claim    a row: p50 / p99 in milliseconds, as are the next three
report   one epoch: value, lease and Optuna's report, until it is committed
verdict  the pruner's answer to that report, reading included
wait     report and verdict: what a trial waits for after each epoch
tps      transactions a second of that database (pg_stat_database), idle commands such as a ping included
epoch    transactions an epoch, those of claim, ask, tell and leases included
conn     connections of that database: mean / most, sampled four times a second
cpu      CPU milliseconds an epoch, claim, ask and tell included: worker + PostgreSQL; says more on a busy machine
cores    busy cores of the machine, other programs included
start    seconds until all workers have opened the study and are ready to claim
lost     rows not done, done twice or by a second attempt, epochs that Optuna lacks; workers that failed

`growth`, in the last line: log(p99 / p99) / log(workers / workers) from the smallest to the largest number.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import psutil
from sqlalchemy import URL, Engine, create_engine, make_url, text

from benchmarks.filled import study
from benchmarks.large import opened, postgresql
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Job
from ralr_tune.launch.worker import work
from ralr_tune.search.pruning import Judge
from ralr_tune.search.stages import plan_search
from ralr_tune.store import studies
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec

WORKERS = (8, 32, 64, 128, 256)
EPOCHS = 12
EPOCH_S = 1.0
READS_ALL = {"sampler": "random", "pruner": "median", "pruner_options": {"n_warmup_steps": 1000, "n_startup_trials": 1}}
TIMED = ("claim", "report", "verdict", "wait")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.load", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--epoch-s", type=float, default=EPOCH_S, help="seconds that an epoch sleeps")
    parser.add_argument("--pooler", metavar="HOST:PORT", help="workers connect there instead, as to a pgbouncer")
    given = parser.parse_args(arguments)
    studies.quiet_optuna()
    print(f"| workers | {' | '.join(TIMED)} | tps | epoch | conn | cpu | cores | start | lost |")
    print("|---" * (len(TIMED) + 8) + "|")
    found = []
    for workers in given.workers:
        found.append(measured(workers, given.epochs, given.epoch_s, given.pooler))
        print(f"| {workers} | {' | '.join(found[-1].cells())} |", flush=True)
    if len(found) > 1:
        steps = math.log(given.workers[-1] / given.workers[0])
        grown = [f"{math.log(found[-1].p99(name) / found[0].p99(name)) / steps:.2f}" for name in TIMED]
        print(f"| growth | {' | '.join(grown)} | | | | | | | |")


class Load(NamedTuple):
    """What one number of workers measured."""

    seconds: dict[str, list[float]]
    """Of every call, by its name."""
    tps: float
    per_epoch: float
    connections: list[int]
    worker_ms: float
    server_ms: float
    cores: float
    start_s: float
    lost: list[str]

    def p99(self, name: str) -> float:
        return quantile(self.seconds[name], 0.99)

    def cells(self) -> Iterator[str]:
        for name in TIMED:
            yield f"{1e3 * quantile(self.seconds[name], 0.5):.1f} / {1e3 * self.p99(name):.0f}"
        yield f"{self.tps:.0f}"
        yield f"{self.per_epoch:.2f}"
        yield f"{sum(self.connections) / len(self.connections):.0f} / {max(self.connections)}"
        yield f"{self.worker_ms:.1f} + {self.server_ms:.1f}"
        yield f"{self.cores:.2f}"
        yield f"{self.start_s:.1f} s"
        yield str(len(self.lost))


def quantile(figures: Sequence[float], share: float) -> float:
    """The smallest figure that at least `share` of them do not exceed."""
    return sorted(figures)[max(0, math.ceil(share * len(figures)) - 1)]


def measured(workers: int, epochs: int, epoch_s: float, pooler: str | None) -> Load:
    """One study with this many workers, whose epochs take `epoch_s` seconds."""
    spec = study(workers, epochs=epochs, seconds_per_epoch=epoch_s, **READS_ALL)
    with tempfile.TemporaryDirectory() as name, postgresql(Path(name)) as url:
        folder = Path(name)
        with opened(url, create=True) as storage:
            studies.register(storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
            for arm in spec.arms:
                studies.optuna_study(storage, studies.optuna_name(spec.name, arm), metric=spec.metric)
            plan_search(Ledger(storage, spec.name), spec, workers)
        job = Job(spec.name, _through(url, pooler), folder, until="search")
        with _optuna_revision_read_once(), _Watch(url) as watch:
            start_s = _run(workers, epoch_s, job, folder, watch)
        seconds, failures = _collected(folder)
        worker_s = sum(seconds.pop("cpu"))
        for each in failures[:3]:
            print(each, file=sys.stderr)
        with opened(url) as storage:
            lost = [*failures, *_lost(storage, spec, epochs)]
    done = 2 * workers * epochs
    return Load(
        seconds,
        tps=watch.transactions / watch.wall_s,
        per_epoch=watch.transactions / done,
        connections=watch.connections,
        worker_ms=1e3 * worker_s / done,
        server_ms=1e3 * watch.server_s / done,
        cores=watch.busy_s / watch.wall_s,
        start_s=start_s,
        lost=lost,
    )


def _through(url: str, pooler: str | None) -> str:
    if pooler is None:
        return url
    host, _, port = pooler.partition(":")
    return make_url(url).set(host=host, port=int(port)).render_as_string(hide_password=False)


@contextmanager
def _optuna_revision_read_once() -> Iterator[None]:
    """Optuna loads all its migrations whenever it opens a database, half a second of CPU: here once for all workers."""
    from optuna.storages import RDBStorage
    from optuna.storages._rdb.storage import _VersionManager

    newest, original = RDBStorage("sqlite://").get_head_version(), _VersionManager.get_head_version
    _VersionManager.get_head_version = lambda manager: newest
    try:
        yield
    finally:
        _VersionManager.get_head_version = original


# ---------------------------------------------------------------- the workers


def _run(workers: int, epoch_s: float, job: Job, folder: Path, watch: _Watch) -> float:
    """Runs the workers to the end of the study; returns how long they took to become ready."""
    context = multiprocessing.get_context("fork")
    ready, go = context.Semaphore(0), context.Event()
    began = time.perf_counter()
    processes = [
        context.Process(target=_worker, args=(index, epoch_s * index / workers, job, folder, ready, go))
        for index in range(workers)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    start_s = time.perf_counter() - began
    with watch.measuring():
        go.set()
        for process in processes:
            process.join()
    return start_s


def _worker(index: int, delay_s: float, job: Job, folder: Path, ready: Any, go: Any) -> None:
    seconds: dict[str, list[float]] = defaultdict(list)
    waiting = Event()

    def begin() -> None:
        if not waiting.is_set():
            waiting.set()
            ready.release()
            go.wait()
            seconds["cpu"].append(-time.process_time())
            time.sleep(delay_s)

    failure = ""
    try:
        Ledger.claim = _timed(Ledger.claim, seconds["claim"], before=begin)  # type: ignore[method-assign]
        Ledger.progress = _timed(Ledger.progress, seconds["report"])  # type: ignore[method-assign]
        Judge.should_prune = _timed(Judge.should_prune, seconds["verdict"])  # type: ignore[method-assign]
        work(job, Place(index, "cpu", 1))
    except BaseException:
        failure = traceback.format_exc()
    seconds["cpu"].append(time.process_time())
    if not waiting.is_set():
        ready.release()
    (folder / f"worker-{index}.json").write_text(json.dumps({"seconds": seconds, "failure": failure}))


def _timed(method: Callable[..., Any], seconds: list[float], before: Callable[[], None] | None = None) -> Any:
    """`method`, with the time of every call that returned something other than no row."""

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before()
        began = time.perf_counter()
        result = method(*args, **kwargs)
        if before is None or result is not None:
            seconds.append(time.perf_counter() - began)
        return result

    return call


def _collected(folder: Path) -> tuple[dict[str, list[float]], list[str]]:
    """The times of all workers, and the errors of those that failed."""
    seconds: dict[str, list[float]] = defaultdict(list)
    failures = []
    for file in sorted(folder.glob("worker-*.json")):
        found = json.loads(file.read_text())
        for name, times in found["seconds"].items():
            seconds[name] += times
        # no verdict is asked for after the last epoch
        pairs = zip(_but_last(found["seconds"]), found["seconds"].get("verdict", ()), strict=False)
        seconds["wait"] += [sum(pair) for pair in pairs]
        failures += [found["failure"]] if found["failure"] else []
    return seconds, failures


def _but_last(seconds: dict[str, list[float]]) -> list[float]:
    """The reports that a verdict followed: all but the last one of each of the two trials."""
    reports, verdicts = seconds.get("report", []), seconds.get("verdict", [])
    trials = len(reports) - len(verdicts)
    length = len(reports) // trials if trials else len(reports)
    return [each for number, each in enumerate(reports, start=1) if not trials or number % length]


def _lost(storage: Any, spec: StudySpec, epochs: int) -> Iterator[str]:
    """What broke the guarantees."""
    rows = Ledger(storage, spec.name).rows("search")
    trials = {arm: studies.optuna_trials(storage, studies.optuna_name(spec.name, arm)) for arm in spec.arms}
    asked = Counter((row.arm, row.trial) for row in rows)
    for row in rows:
        if row.outcome != "complete" or row.attempt != 1 or len(row.curve) != epochs or asked[row.arm, row.trial] != 1:
            yield f"row {row.id}: {row.state}, {row.outcome}, attempt {row.attempt}, {len(row.curve)} epochs"
            continue
        reported = trials[row.arm][row.trial or 0].intermediate_values
        if reported != {record.epoch: record.value for record in row.curve}:
            yield f"row {row.id}: reported {len(reported)} epochs"


# ---------------------------------------------------------------- the server, from outside


class _Watch:
    """Counts transactions, connections and CPU time while the workers run, over a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url: URL = make_url(url).set(drivername="postgresql+psycopg")
        self.connections: list[int] = []
        self.transactions, self.wall_s, self.busy_s, self.server_s = 0, 0.0, 0.0, 0.0

    def __enter__(self) -> _Watch:
        admin = self._url.set(database="postgres")
        self._engine: Engine = create_engine(admin, isolation_level="AUTOCOMMIT", pool_size=1)
        return self

    def __exit__(self, *error: object) -> None:
        self._engine.dispose()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        over = Event()
        sampling = Thread(target=self._sample, args=(over,), daemon=True)
        before, began = self._counted(), time.perf_counter()
        sampling.start()
        yield
        self.wall_s = time.perf_counter() - began
        over.set()
        sampling.join()
        time.sleep(1.5)  # a session adds its last transactions to the statistics within a second
        after = self._counted()
        self.transactions = int(after[0] - before[0])
        self.busy_s, self.server_s = after[1] - before[1], after[2] - before[2]

    def _sample(self, over: Event) -> None:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE datname = :name")
        while not over.wait(0.25):
            with self._engine.connect() as connection:
                self.connections.append(connection.scalar(query, {"name": self._url.database}) or 0)

    def _counted(self) -> tuple[float, float, float]:
        """Transactions; CPU seconds of the machine, and of PostgreSQL's processes, the ended ones included."""
        query = text("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = :name")
        with self._engine.connect() as connection:
            transactions = float(connection.scalar(query, {"name": self._url.database}) or 0)
            postmaster = _postmaster(connection.scalar(text("SELECT pg_backend_pid()")) or 0)
        busy = psutil.cpu_times()
        cpu = busy.user + busy.nice + busy.system + busy.irq + busy.softirq
        return transactions, cpu, _server_s(postmaster)


def _postmaster(backend: int) -> psutil.Process | None:
    """The server's first process, if it runs on this machine."""
    try:
        return psutil.Process(backend).parent()
    except psutil.Error:
        return None


def _server_s(postmaster: psutil.Process | None) -> float:
    total = 0.0
    if postmaster is None:
        return math.nan
    for process in (postmaster, *postmaster.children()):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    ended = postmaster.cpu_times()
    return total + ended.children_user + ended.children_system


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
