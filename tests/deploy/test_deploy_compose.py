"""The services of docker-compose.yml: their commands, in their order, with their health checks.

These tests do not need Docker (see compose.Stack). They kill a worker in the middle, and then the database.
"""

from __future__ import annotations

import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import optuna
import pytest
from optuna.trial import TrialState

from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from tests.deploy.compose import Stack
from tests.deploy.guarded import GuardedServer, guarded_server
from tests.faults.servers import _free_port
from tests.studies import simulated_text
from tests.waiting import LONG_S, until

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
TRIALS = 6


@pytest.fixture
def server() -> Iterator[GuardedServer]:
    with guarded_server("postgresql", secrets.token_urlsafe(32), name="ralr") as found:
        yield found


@pytest.fixture
def stack(server: GuardedServer, tmp_path: Path) -> Iterator[Stack]:
    """./secrets with both secrets, ./studies with a slow simulated study."""
    for folder in ("secrets", "studies", "runs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "secrets/database_password").write_text(f"{server.password}\n")
    (tmp_path / "secrets/dashboard_token").write_text(f"{secrets.token_urlsafe(32)}\n")
    text = simulated_text(
        task={"data": {"seconds_per_epoch": 0.4}},
        search={"trials": TRIALS, "pruner": "none"},
        confirm={"top": 1, "seeds": 2},
        storage={"lease_s": 2},
    )
    (tmp_path / "studies/sim.toml").write_text(text)
    place = f"127.0.0.1:{server.place.port}"
    started = Stack(tmp_path, tmp_path / "secrets", place, _free_port(), {"STUDY": "sim"})
    yield started
    started.down()


def restarted(stack: Stack, service: str, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """Restart a process as `restart: on-failure` does."""
    assert stack.services[service]["restart"].startswith("on-failure")
    return stack.start(service) if process.poll() not in (None, 0) else process


def ledger(server: GuardedServer) -> Ledger:
    return Ledger(open_storage(server.url), "sim")


def until_epochs(server: GuardedServer, more_than: int) -> None:
    """Wait until the workers have finished more than this number of epochs in total."""
    until(lambda: sum(row.epoch for row in ledger(server).rows(curves=False)) > more_than, "the workers get on")


def test_nothing_starts_without_the_password(stack: Stack) -> None:
    (stack.secrets / "database_password").unlink()
    assert stack.start("init").wait(LONG_S) == 2
    assert f"RALR_TUNE_STORAGE_PASSWORD_FILE={stack.secrets}/database_password: cannot be read" in stack.logs()


def test_nothing_starts_with_a_wrong_password(stack: Stack) -> None:
    (stack.secrets / "database_password").write_text("wrong")
    assert stack.start("init").wait(LONG_S) == 1
    assert "password authentication failed" in stack.logs()


@pytest.mark.slow
def test_a_study_through_a_killed_worker_and_a_killed_database(stack: Stack, server: GuardedServer) -> None:
    stack.until_healthy("database", PROGRAMS)
    for _ in range(2):  # `up` runs it every time
        assert stack.start("init").wait(LONG_S) == 0
    workers = [stack.start("worker-cpu") for _ in range(2)]
    report, dashboard = stack.start("report"), stack.start("dashboard")
    stack.until_healthy("dashboard")

    until_epochs(server, more_than=4)
    workers[0].send_signal(signal.SIGKILL)
    workers[0].wait()
    workers[0] = restarted(stack, "worker-cpu", workers[0])
    until_epochs(server, more_than=10)
    server.server.kill()
    assert not stack.healthy("database", PROGRAMS)
    time.sleep(3)
    server.server.start()
    stack.until_healthy("database", PROGRAMS)

    end = time.monotonic() + 2 * LONG_S
    while any(process.poll() != 0 for process in (*workers, report)):
        assert time.monotonic() < end, stack.logs()
        workers = [restarted(stack, "worker-cpu", process) for process in workers]
        report = restarted(stack, "report", report)
        time.sleep(0.5)
    check_whole(stack, server)
    check_dashboard(stack)
    dashboard.send_signal(signal.SIGTERM)
    assert dashboard.wait(LONG_S) == 0
    assert server.password not in stack.logs()


def check_whole(stack: Stack, server: GuardedServer) -> None:
    """Check the exact budget, that no files are left over, and the study's output files."""
    rows = ledger(server).rows()
    assert {row.state for row in rows} == {"done"}
    assert {row.outcome for row in rows} == {"complete"}
    for arm in ("monotone", "ralr"):
        assert sum(row.arm == arm and row.stage == "search" for row in rows) == TRIALS
        study = optuna.load_study(study_name=f"sim/{arm}", storage=open_storage(server.url).optuna)
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * TRIALS
    assert max(row.attempt for row in rows) >= 2
    for row in rows:
        if row.stage != "test":
            assert [record.epoch for record in row.curve] == [1, 2, 3, 4]
    out = stack.folder / "runs/sim"
    assert (out / "report.html").stat().st_size > 1_000_000
    assert {path.name for path in (out / "best").iterdir()} == {"monotone.toml", "ralr.toml"}


def check_dashboard(stack: Stack) -> None:
    """Check that it requires the token and still responds after the database was down."""
    address = f"http://127.0.0.1:{stack.port}/api/studies"
    token = (stack.secrets / "dashboard_token").read_text().strip()
    with urlopen(Request(address, headers={"Authorization": f"Bearer {token}"}), timeout=LONG_S) as answer:
        assert b"sim/ralr" in answer.read()
    stack.until_healthy("dashboard")
    assert token not in stack.logs()
