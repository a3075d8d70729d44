"""What large studies cost: `python -m benchmarks.large` prints a table for each database (about five minutes).

Studies of the simulated task with 100, 1,000 and 10,000 finished trials of 30 epochs in two arms, written directly
into the tables (filled.py), on SQLite and, if a server listens (RALR_TUNE_TEST_POSTGRESQL), on PostgreSQL, in a
temporary database. Wall-clock seconds, in brackets this process's CPU seconds: the difference is what a busy machine or
the server added. `growth` is that of the CPU time, as a power of the number of trials, from the smallest to the largest
study: 1 is linear, 0 constant.

plan            the rows of a new study
worker starts   recovery of crashed trials, the stage, the first claim and ask: all trials are read once
ask             of a running worker: a new trial, TPE, all its parameters; median of REPEATS, as are the next four
report          one epoch: lease, progress and Optuna's report, in one transaction
verdict         whether to prune: the pruner, Optuna's reads included
tell            the outcome, to the ledger and to Optuna
claim           the next row, when every row of the study waits
status          `status`
export          `export`
report.html     `report`: facts, importance, page, panels
studies         the dashboard's first page: /api/studies
study           the dashboard's page of one arm: /api/studies/ID
page            of report.html, in MB
"""

from __future__ import annotations

import argparse
import io
import math
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from benchmarks.filled import fill, study
from ralr_tune.commands.dashboard import make_app
from ralr_tune.commands.export import export_study
from ralr_tune.commands.report import make_report
from ralr_tune.commands.status import study_status
from ralr_tune.records import EpochRecord, Row
from ralr_tune.search import trial as trials
from ralr_tune.search.pruning import Judge
from ralr_tune.search.session import Session
from ralr_tune.search.stages import advance, plan_search
from ralr_tune.search.tasks import Tasks
from ralr_tune.search.telling import optuna_study, settle, tell
from ralr_tune.store import studies
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec

T = TypeVar("T")

SIZES = (100, 1000, 10_000)
REPEATS = 6
FREE = REPEATS // 2 + 1
"""Waiting rows of each arm: one of each arm is for the start."""
SERVER = "postgresql://postgres@127.0.0.1:5432/postgres"


class Cost(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{_short(self.wall)} ({_short(self.cpu)})"


class Clock:
    """What was timed, by name."""

    def __init__(self) -> None:
        self.costs: dict[str, list[Cost]] = defaultdict(list)

    def time(self, name: str, work: Callable[[], T]) -> T:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.costs[name].append(Cost(time.perf_counter() - wall, time.process_time() - cpu))
        return result

    def median(self, name: str) -> Cost:
        walls, cpus = zip(*self.costs[name], strict=True)
        return Cost(statistics.median(walls), statistics.median(cpus))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.large", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="trials of a study, both arms together")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    given = parser.parse_args(arguments)
    studies.quiet_optuna()
    for name in given.databases:
        try:
            columns = [measured(name, size) for size in [given.sizes[0], *given.sizes]][1:]  # the first run imports
        except OperationalError as error:
            print(f"\n{name}: not measured: {error.orig}")
            continue
        print(f"\n{name}\n")
        print("\n".join(table(given.sizes, columns)), flush=True)


def measured(database: str, size: int) -> dict[str, Cost | float]:
    """All costs of a study of this size on this database."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(DATABASES[database](folder))
        clock, spec = Clock(), study(size // 2 + FREE)
        with opened(url, create=True) as storage:
            fill(storage, spec, free=FREE)
        _worker(clock, url, folder, spec)
        _reader(clock, url, folder, spec.name)
        with opened(url) as storage:
            ledger = Ledger(storage, "waiting")
            clock.time("plan", lambda: plan_search(ledger, spec, size // 2))
            for _ in range(REPEATS):
                clock.time("claim", lambda: ledger.claim("large", "search"))
        page = (folder / "report.html").stat().st_size / 1e6
    return {**{name: clock.median(name) for name in clock.costs}, "page": page}


def _worker(clock: Clock, url: str, folder: Path, spec: StudySpec) -> None:
    """A worker's start and its trials."""
    with opened(url) as storage:
        ledger = Ledger(storage, spec.name, lease_s=600)
        tasks = Tasks(spec, device="cpu")
        session = Session(spec, storage, ledger, tasks, folder, "large")

        def start() -> list[Any]:
            settle(session)
            session.artifacts.tidy(lambda: ledger.rows(curves=False))
            advance(ledger, storage, spec)
            return [_asked(session) for _ in spec.arms]

        clock.time("worker starts", start)
        for _ in range(REPEATS):
            _trial(clock, session)


def _asked(session: Session) -> tuple[Row, Any, Any]:
    row = session.ledger.claim(session.owner, "search")
    assert row is not None
    optuna = optuna_study(session, row)
    asked = trials._asked(session, optuna, row)
    trials._suggested(session, asked, row)
    return row, optuna, asked


def _trial(clock: Clock, session: Session) -> None:
    row, optuna, asked = clock.time("ask", lambda: _asked(session))
    curve = [EpochRecord(epoch, 0.1 * epoch, 1.0, 0.1, 1.0, 0.1) for epoch in (1, 2, 3)]
    judge = Judge(optuna, session.spec.search.prune_on)
    for record in curve:

        def report(record: EpochRecord = record) -> None:
            session.ledger.progress(row, record, report_to=asked._trial_id)
            studies.cache_report(asked, record)

        clock.time("report", report)
        clock.time("verdict", lambda: judge.should_prune(asked))

    def end() -> None:
        session.ledger.finish(row, outcome="complete", value=0.3, curve=curve, seconds=0.3)
        tell(session, session.ledger.row(row.id), optuna)

    clock.time("tell", end)


def _reader(clock: Clock, url: str, folder: Path, name: str) -> None:
    """What users read; each command opens the database again."""
    with opened(url) as storage:
        clock.time("status", lambda: study_status(storage, name).as_json())
    with opened(url) as storage:
        clock.time("export", lambda: export_study(storage, name, arm=None, trial=None, form="toml"))
    with opened(url) as storage:
        clock.time("report.html", lambda: make_report(storage, name, folder))
    with opened(url) as storage:
        clock.time("studies", lambda: _get(storage, folder, "/api/studies"))
        number = studies.optuna_study(storage, studies.optuna_name(name, "ralr"))._study_id
        clock.time("study", lambda: _get(storage, folder, f"/api/studies/{number}"))


def _get(storage: Storage, folder: Path, path: str) -> bytes:
    """A request to the dashboard, without its sockets."""
    app, answered = make_app(storage, folder, write=False, token=None), []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "after=0",
        "HTTP_HOST": "127.0.0.1:8080",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
    }
    body = b"".join(app(environ, lambda status, headers, error=None: answered.append(status)))
    if answered != ["200 OK"]:
        raise RuntimeError(f"{path}: {answered}")
    return body


@contextmanager
def opened(url: str, *, create: bool = False) -> Iterator[Storage]:
    """A storage with empty caches."""
    storage = open_storage(url, create=create)
    try:
        yield storage
    finally:
        storage.dispose()


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder}/study.db"


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A separate database on the server."""
    server: URL = make_url(os.environ.get("RALR_TUNE_TEST_POSTGRESQL", SERVER)).set(drivername="postgresql+psycopg")
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    name = f"ralr_tune_large_{os.getpid()}"
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            with engine.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name}"))
    finally:
        engine.dispose()


DATABASES = {"sqlite": sqlite, "postgresql": postgresql}


def table(sizes: list[int], columns: list[dict[str, Any]]) -> Iterator[str]:
    """As Markdown: the timings by size of the study."""
    yield f"| | {' | '.join(f'{size:,} trials' for size in sizes)} | growth |"
    yield "|---" * (len(sizes) + 2) + "|"
    for name in columns[0]:
        found = [column[name] for column in columns]
        cells = [f"{cost:.1f} MB" if isinstance(cost, float) else str(cost) for cost in found]
        yield f"| {name} | {' | '.join(cells)} | {_growth(sizes, found)} |"


def _growth(sizes: list[int], found: list[Cost | float]) -> str:
    first, last = (cost if isinstance(cost, float) else cost.cpu for cost in (found[0], found[-1]))
    if len(sizes) < 2 or not first > 0:
        return ""
    return f"{math.log(last / first) / math.log(sizes[-1] / sizes[0]):.2f}"


def _short(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


if __name__ == "__main__":
    main()
