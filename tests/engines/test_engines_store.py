"""Workers whose machines share nothing but a database and a real S3, and faults of both at random moments."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median

import pytest

from ralr_tune.records import Row
from ralr_tune.search.stages import pending_stage
from ralr_tune.store import artifacts
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import parse_study
from tests.engines.object_server import BUCKET, SECRET, ObjectServer, obstacle
from tests.engines.running import FAULTS, WORKERS, study_text
from tests.faults.storm import violations
from tests.faults.test_faults_storm import DIGITS, NO_VIOLATIONS
from tests.waiting import LONG_S, until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(obstacle() is not None, reason=f"no S3 server here: {obstacle()}")]

STORE = f"s3://{BUCKET}/team"
FAULTS_PER_STUDY = 10
LOSSES = ("is missing or damaged", "no usable checkpoint", "Traceback")
"""What no worker's log may contain."""


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    made = ObjectServer()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        made.client().create_bucket(Bucket=BUCKET)
        yield made
    made.stop()


@pytest.fixture
def url(new_database: Callable[..., str]) -> str:
    return new_database("postgresql")


class Machines:
    """Workers of one study, each in an out folder of its own; a machine that ends is replaced by an empty one."""

    def __init__(self, text: str, url: str, root: Path) -> None:
        self.spec, self.url, self.root = parse_study(text), url, root
        root.mkdir()
        file = root / "study.toml"
        file.write_text(text)
        self._called("run", str(file), "--init", "--artifacts", STORE, "--out", str(root / "init"))
        self.storage = open_storage(url)
        self.ledger = Ledger(self.storage, self.spec.name)
        self.number = 0
        self.workers: dict[Path, subprocess.Popen[bytes]] = {}
        self.refused = 0
        self.again_s: list[float] = []
        """Seconds from a fault that ended a worker until its row was held again."""
        self._ended: dict[int, tuple[int, float]] = {}
        self._resume_points: dict[int, int] = {}

    def _called(self, *words: str) -> str:
        command = [sys.executable, "-m", "ralr_tune", *words, "--storage", self.url]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        return found.stdout

    def fill(self) -> None:
        """Replaces machines whose worker has ended."""
        for out, process in list(self.workers.items()):
            code = process.poll()
            if code in (None, 0):
                continue
            log = self.log(out)
            assert code in (130, -signal.SIGKILL, -signal.SIGTERM) or "access is refused" in log, f"{code}: {log}"
            self.refused += code == 2
            shutil.rmtree(out, ignore_errors=True)
            del self.workers[out]
        while sum(process.poll() is None for process in self.workers.values()) < WORKERS and self.pending is not None:
            self._start()

    def _start(self) -> None:
        out = self.root / f"machine{self.number}"
        self.number += 1
        command = [sys.executable, "-m", "ralr_tune", "worker", self.spec.name, "--out", str(out), "--threads", "1"]
        with (self.root / f"{out.name}.log").open("wb") as log:
            self.workers[out] = subprocess.Popen(
                command, env=os.environ | {"RALR_TUNE_STORAGE": self.url}, stdout=log, stderr=log
            )

    def log(self, out: Path) -> str:
        return (self.root / f"{out.name}.log").read_text()

    def logs(self) -> str:
        return "".join(file.read_text() for file in self.root.glob("*.log"))

    @property
    def rows(self) -> list[Row]:
        return self.ledger.rows(curves=False)

    @property
    def pending(self) -> object:
        return pending_stage(self.spec, self.rows)

    @property
    def held(self) -> list[Row]:
        """Rows of workers that run."""
        alive = {process.pid for process in self.workers.values() if process.poll() is None}
        return [row for row in self.rows if row.state == "held" and _pid(row) in alive]

    def end(self, row: Row, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(_pid(row), number)
        self._ended[row.id] = row.attempt, time.monotonic()

    def check_resume_points(self) -> None:
        """What the database names covers every recorded epoch, and never goes back."""
        rows = [row for row in self.rows if row.state != "done" and row.epoch]
        valid = artifacts.valid(self.storage, self.spec.name)
        states = {row.id: row.state for row in self.rows}
        for row in rows:
            if states[row.id] == "done":
                continue
            assert valid[row.id].epoch >= row.epoch, f"{row} resumes from {valid[row.id]}"
            assert valid[row.id].epoch >= self._resume_points.get(row.id, 0)
            self._resume_points[row.id] = valid[row.id].epoch

    def record_resumed(self) -> None:
        for row in self.rows:
            attempt, when = self._ended.get(row.id, (row.attempt, 0.0))
            if row.attempt > attempt:
                self.again_s.append(time.monotonic() - when)
                del self._ended[row.id]

    def report(self) -> str:
        """`run` that starts no worker: waits for the end, and writes the report."""
        file, out = str(self.root / "study.toml"), str(self.root / "report")
        return self._called("run", file, "--no-workers", "--quiet", "--out", out)


def _pid(row: Row) -> int:
    return int((row.owner or "::").split(":")[1] or 0)


def test_a_study_trains_on_machines_that_share_nothing(server: ObjectServer, url: str, tmp_path: Path) -> None:
    machines = Machines(study_text("whole", trials=3), url, tmp_path / "whole")
    _until_done(machines)
    assert machines.report()
    _check(machines, server)


def test_faults_of_the_store(server: ObjectServer, url: str, tmp_path: Path) -> None:
    drawn, counted, number, again_s = random.Random(1), Counter[str](), 0, []
    names = [name for _ in range(FAULTS) for name in drawn.sample(sorted(KINDS), len(KINDS))]  # each as often
    while counted.total() < FAULTS:
        text = study_text(f"storm{number}") if number else DIGITS.replace('"storm"', '"storm0"')  # one network
        machines = Machines(text, url, tmp_path / f"storm{number}")
        _storm(machines, server, drawn, names, counted, min(FAULTS, (number + 1) * FAULTS_PER_STUDY))
        _check(machines, server)
        again_s += machines.again_s
        number += 1
        print(f"\n{counted.total()} faults in {number} studies: {dict(sorted(counted.items()))}")
    print(f"held again after {median(again_s):.1f} s (median), {max(again_s):.1f} s (longest of {len(again_s)})")


def _storm(
    machines: Machines,
    server: ObjectServer,
    drawn: random.Random,
    names: list[str],
    counted: Counter[str],
    faults: int,
) -> None:
    """Faults until there are enough or the study is done; then waits for its end."""
    end = time.monotonic() + LONG_S * 4
    while machines.pending is not None:
        assert time.monotonic() < end, f"stuck: {machines.logs()[-3000:]}"
        machines.fill()
        time.sleep(drawn.uniform(0.5, 2.0))
        machines.check_resume_points()
        machines.record_resumed()
        if counted.total() < faults and machines.held and KINDS[names[-1]](machines, server, drawn):
            counted[names.pop()] += 1
    _until_done(machines)


def _until_done(machines: Machines) -> None:
    def done() -> bool:
        machines.fill()
        machines.record_resumed()
        return machines.pending is None and all(each.poll() is not None for each in machines.workers.values())

    until(done, "the study is done")


def _check(machines: Machines, server: ObjectServer) -> None:
    assert violations(machines.url, machines.spec, machines.root) == NO_VIOLATIONS
    left = [key for key in server.objects() if f"/{machines.spec.name}-" in key and not key.endswith("marker")]
    assert [key for key in left if "/logs/" not in key] == []
    _check_stored_logs(server, left)
    assert artifacts.valid(machines.storage, machines.spec.name) == {}
    logs = machines.logs()
    assert [each for each in (*LOSSES, SECRET) if each in logs] == []
    machines.storage.dispose()


def _check_stored_logs(server: ObjectServer, keys: list[str]) -> None:
    """Workers on machines that are gone left their logs in the store."""
    contents = [server.client().get_object(Bucket=BUCKET, Key=key)["Body"].read().decode() for key in keys]
    assert sum("INFO ralr_tune.launch.worker: row " in each for each in contents) >= WORKERS
    assert not any(SECRET in each for each in contents)


# ---------------------------------------------------------------- the faults: each says whether it took place


def store_stopped(machines: Machines, server: ObjectServer, drawn: random.Random) -> bool:
    with server.away():
        time.sleep(drawn.uniform(1.0, 8.0))
    return True


def store_failing(machines: Machines, server: ObjectServer, drawn: random.Random) -> bool:
    with server.answering(500, "InternalError"):
        time.sleep(drawn.uniform(1.0, 6.0))
    return True


def store_busy(machines: Machines, server: ObjectServer, drawn: random.Random) -> bool:
    with server.answering(503, "SlowDown"):
        time.sleep(drawn.uniform(1.0, 4.0))
    return True


def store_refusing(machines: Machines, server: ObjectServer, drawn: random.Random) -> bool:
    """As while credentials are replaced."""
    with server.answering(403, "AccessDenied"):
        time.sleep(drawn.uniform(1.0, 4.0))
    return True


def stopped_in_an_upload(machines: Machines, server: ObjectServer, drawn: random.Random) -> bool:
    with ExitStack() as both:
        both.enter_context(server.away())
        with server.holding_uploads():
            server.start()
            found = server.uploading(within_s=5.0) is not None
            server.stop()
            time.sleep(drawn.uniform(0.5, 2.0))
    return found


def worker_killed(machines: Machines, server: ObjectServer, drawn: random.Random) -> bool:
    machines.end(drawn.choice(machines.held or machines.rows[:1]), signal.SIGKILL)
    return True


def worker_stopped(machines: Machines, server: ObjectServer, drawn: random.Random) -> bool:
    machines.end(drawn.choice(machines.held or machines.rows[:1]), signal.SIGTERM)
    return True


def killed_in_an_upload(machines: Machines, server: ObjectServer, drawn: random.Random) -> bool:
    with server.holding_uploads():
        row_id = server.uploading(within_s=5.0)
        found = [row for row in machines.held if row.id == row_id]
        for row in found:
            machines.end(row, signal.SIGKILL)
            time.sleep(0.3)
    return bool(found)


def killed_while_paused(machines: Machines, server: ObjectServer, drawn: random.Random) -> bool:
    return _ended_while_paused(machines, server, drawn, signal.SIGKILL)


def stopped_while_paused(machines: Machines, server: ObjectServer, drawn: random.Random) -> bool:
    return _ended_while_paused(machines, server, drawn, signal.SIGTERM)


def _ended_while_paused(machines: Machines, server: ObjectServer, drawn: random.Random, number: signal.Signals) -> bool:
    with server.away():
        end = time.monotonic() + 15
        while not (paused := [row for row in machines.held if row.paused]):
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        row = drawn.choice(paused)
        machines.end(row, number)
        time.sleep(drawn.uniform(0.5, 3.0))
    return True


KINDS: dict[str, Callable[[Machines, ObjectServer, random.Random], bool]] = {
    each.__name__: each
    for each in (
        store_stopped, store_failing, store_busy, store_refusing, stopped_in_an_upload, worker_killed, worker_stopped,
        killed_in_an_upload, killed_while_paused, stopped_while_paused,
    )
}  # fmt: skip
