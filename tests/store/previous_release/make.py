"""Makes the fixture of the previous release's databases with that release's own code, which must be a checkout of
de5f7cf with an environment of its own:

    git worktree add ../previous de5f7cf      # and install it: pip install -e ../previous in an environment of its own
    cd ../previous && OMP_NUM_THREADS=1 .venv/bin/python PROJECT/tests/store/previous_release/make.py

Servers are those of the tests (RALR_TUNE_TEST_POSTGRESQL, RALR_TUNE_TEST_MARIADB); pg_dump and mysqldump must be there.
Of each kind of database it writes KIND.sql.gz and checkpoints/KIND/: both studies of this folder, interrupted. Then the
release itself continues from there on SQLite; what it comes to is STUDY.json and best/STUDY/, and the tests hold every
kind to it. Nothing here follows what the program becomes: it runs old code alone.
"""

from __future__ import annotations

import gzip
import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from answers import lasting, rows_of  # this folder is the script's
from sqlalchemy import URL, create_engine, make_url, text

HERE = Path(__file__).parent
COMMIT = "de5f7cf"
POSTGRESQL = os.environ.get("RALR_TUNE_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres")
MARIADB = os.environ.get("RALR_TUNE_TEST_MARIADB", "mysql://root@127.0.0.1:3306/mysql")

BEGUN = {"old-curves": (15, (3, 2)), "old-digits": (1, (2,))}
"""Rows done, and epochs done of each further one: the last one's worker is killed, the others are free again."""


# ---------------------------------------------------------------- an interrupted study


def begin(study: str, url: str, out: Path) -> None:
    """Creates a study and works on it until this process ends without warning."""
    from ralr_tune.spec import load_study_file
    from ralr_tune.tasks.load import load_task

    from ralr_tune.commands.run import init
    from ralr_tune.errors import Interrupted
    from ralr_tune.launch.devices import Place
    from ralr_tune.launch.worker import environment
    from ralr_tune.search.session import Session
    from ralr_tune.search.trial import epochs_of, work_on
    from ralr_tune.store import studies
    from ralr_tune.store.database import open_storage
    from ralr_tune.store.ledger import Ledger

    spec = load_study_file(HERE / f"{study}.toml")
    init(spec, storage=url, out=out)
    storage = open_storage(url)
    task = load_task(spec.task, seed=spec.study.seed, device="cpu", decoded=out / "data")
    ledger = Ledger(storage, study, lease_s=60)
    session = Session(spec, storage, ledger, task, out, "gone:4711:0")
    studies.set_environment(storage, study, environment(Place(0, "cpu", 1)))

    def claimed() -> Any:
        row = ledger.claim(session.owner, "search")
        assert row is not None
        return row

    done, stopped = BEGUN[study]
    for _ in range(done):
        work_on(session, claimed())
    trials = [epochs_of(session, claimed()) for _ in stopped]
    ledger.lease_s = 1  # soon over for the row whose worker is killed
    for trial, epochs in zip(trials, stopped, strict=True):
        for _ in range(epochs + 1):
            next(trial)
    for trial in trials[:-1]:
        with suppress(Interrupted):
            trial.throw(Interrupted("the worker leaves"))
    os._exit(9)


# ---------------------------------------------------------------- databases


class SQLite:
    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "study.db"
        self.url = f"sqlite:///{self._file}"

    def dump(self) -> str:
        with sqlite3.connect(self._file) as connection:
            return "\n".join(connection.iterdump()) + "\n"

    def drop(self) -> None:
        self._file.unlink()


class Server:
    def __init__(self, kind: str, url: str, driver: str, dump: Callable[[URL], list[str]]) -> None:
        self.kind, self._command = kind, dump
        self._admin = make_url(url).set(drivername=driver)
        self._name = f"ralr_tune_previous_{secrets.token_hex(6)}"
        self._ask(f"CREATE DATABASE {self._name}")
        self.url = make_url(url).set(database=self._name).render_as_string(hide_password=False)

    def dump(self) -> str:
        command = self._command(make_url(self.url))
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        # psql's own commands, which no server knows
        return "".join(line for line in found.splitlines(keepends=True) if not line.startswith("\\"))

    def drop(self) -> None:
        self._ask(f"DROP DATABASE {self._name}")

    def _ask(self, statement: str) -> None:
        engine = create_engine(self._admin, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()


def pg_dump(url: URL) -> list[str]:
    plain = url.render_as_string(hide_password=False)
    return ["pg_dump", "--inserts", "--rows-per-insert=1000", "--no-owner", "--no-privileges", plain]


def mysqldump(url: URL) -> list[str]:
    place = [f"--host={url.host}", f"--port={url.port or 3306}", f"--user={url.username}"]
    password = [f"--password={url.password}"] if url.password else []
    plain = ["--skip-dump-date", "--skip-add-locks", "--skip-disable-keys", "--hex-blob"]
    return ["mysqldump", *place, *password, *plain, url.database or ""]


SERVERS = (
    ("postgresql", POSTGRESQL, "postgresql+psycopg", pg_dump),
    ("mariadb", MARIADB, "mysql+pymysql", mysqldump),
)

# ---------------------------------------------------------------- what the release itself comes to


def cli(*arguments: object) -> str:
    """Standard output of the old program."""
    command = [sys.executable, "-m", "ralr_tune", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def answers(study: str, url: str, out: Path) -> dict[str, Any]:
    """Continues to the end, with one worker: what every row, the report and the exported files say."""
    from ralr_tune.store.database import open_storage
    from ralr_tune.store.reading import read_study

    def rows() -> list[dict[str, Any]]:
        storage = open_storage(url)
        try:
            return rows_of(read_study(storage, study))
        finally:
            storage.dispose()

    place = ("--storage", url, "--out", out)
    before = {"status": lasting(json.loads(cli("status", study, *place, "--json"))), "rows": rows()}
    file = HERE / f"{study}.toml"
    cli("run", file, *place, "--init")
    cli("worker", study, *place, "--device", "cpu", "--threads", 1)
    report = json.loads(cli("run", file, *place, "--workers", 1, "--devices", "cpu", "--json"))
    return {"before": before, "rows": rows(), "report": lasting(report)}


def score(best: Path) -> float:
    """What `train` makes of the exported configuration of RALR, on the test split."""
    cli("train", best / "ralr.toml", "--device", "cpu")
    value: float = json.loads((best / "ralr" / "score.json").read_text())["value"]
    return value


# ---------------------------------------------------------------- the whole


def interrupted(database: Any, out: Path) -> None:
    """Writes one kind's part of the fixture."""
    for study in BEGUN:
        ended = subprocess.run([sys.executable, __file__, study, database.url, out], check=False)
        assert ended.returncode == 9, ended
    time.sleep(1.5)  # the lease of the killed worker
    (HERE / f"{database.kind}.sql.gz").write_bytes(gzip.compress(database.dump().encode(), mtime=0))
    shutil.copytree(out / "checkpoints", HERE / "checkpoints" / database.kind)


def continued(study: str, url: str, out: Path) -> None:
    """Writes what the release comes to: STUDY.json and best/STUDY/."""
    found = answers(study, url, out)
    best = HERE / "best" / study
    best.mkdir(parents=True)
    for path in (out / "best").glob("*.toml"):
        shutil.copy(path, best)
    found["score"] = score(out / "best")
    (HERE / f"{study}.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert head.startswith(COMMIT), f"run this in a checkout of {COMMIT}, with its environment"
    for folder in ("checkpoints", "best"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for kind, url, driver, dump in SERVERS:
            server = Server(kind, url, driver, dump)
            try:
                interrupted(server, folder / kind)
            finally:
                server.drop()
        sqlite = SQLite(folder)
        interrupted(sqlite, folder / sqlite.kind)
        for study in BEGUN:
            continued(study, sqlite.url, folder / sqlite.kind)


if __name__ == "__main__":
    if sys.argv[1:]:
        begin(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        main()
