"""A real Slurm: the whole command, and faults of the engine at random moments. Nothing may be lost, twice, or stuck."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.engines.running import FAULTS, LEASE_S, WORKERS, Faults, Running, study_text
from tests.engines.slurm_cluster import NODES, Cluster, cluster, obstacle
from tests.faults.storm import violations
from tests.faults.test_faults_storm import NO_VIOLATIONS
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(obstacle() is not None, reason=f"no Slurm here: {obstacle()}")]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm")) as made:
        yield made


@pytest.fixture
def url(new_database: Callable[..., str]) -> str:
    return new_database("postgresql")


def started(text: str, url: str, out: Path) -> Running:
    return Running(text, url, out, "--launcher", "slurm", "--launcher-option", "poll-s=0.5")


def test_a_study_runs_to_its_answer(slurm: Cluster, url: str, tmp_path: Path) -> None:
    run = started(study_text("whole", trials=3), url, tmp_path / "out")
    until(run.ended, "run ends")
    assert run.process.returncode == 0, run.log()
    assert violations(url, run.spec, run.out) == NO_VIOLATIONS
    assert (run.out / "report.html").exists()


def test_cancelled_workers_stay_cancelled_and_their_rows_are_free_at_once(
    slurm: Cluster, url: str, tmp_path: Path
) -> None:
    run = started(study_text("cancelled"), url, tmp_path / "out")
    until(lambda: len(run.held) == WORKERS, "all workers train")
    (task, *_) = slurm.running()
    slurm.called("scancel", task)
    until(lambda: len(slurm.running()) == WORKERS - 1, "it is gone", within_s=60)
    until(lambda: len(run.held) < WORKERS, "its row is free", within_s=LEASE_S / 2)
    time.sleep(5)  # longer than `run` takes to start a worker again
    assert len(slurm.running()) == WORKERS - 1
    slurm.called("scancel", *slurm.running())
    until(run.ended, "run ends without workers")
    assert run.pending is not None
    run.start()  # the same command resumes
    until(run.ended, "run ends")
    assert violations(url, run.spec, run.out) == NO_VIOLATIONS


def test_ctrl_c_empties_the_queue_and_frees_every_row(slurm: Cluster, url: str, tmp_path: Path) -> None:
    run = started(study_text("interrupted"), url, tmp_path / "out")
    until(lambda: len(run.held) == WORKERS, "all workers train")
    run.process.send_signal(signal.SIGINT)
    until(run.ended, "run ends")
    assert run.process.returncode == 130
    assert not slurm.called("squeue", "-h").strip()
    assert not run.held


def test_faults_of_the_engine(slurm: Cluster, url: str, tmp_path: Path) -> None:
    faults, number = Faults(slurm, KINDS, pause_s=(1.0, 3.0), after_each=slurm.hurry), 0
    while faults.counted.total() < FAULTS:
        run = started(study_text(f"storm{number}"), url, tmp_path / f"out{number}")
        faults.strike(run)
        assert violations(url, run.spec, run.out) == NO_VIOLATIONS
        assert not slurm.called("squeue", "-h").strip()
        number += 1
        print(f"\n{faults.counted.total()} faults in {number} studies{faults.table()}", flush=True)


# ---------------------------------------------------------------- the faults: each says whether it found a target


def time_limit(slurm: Cluster, run: Running, drawn: random.Random) -> bool:
    """What Slurm sends before the limit."""
    return _to_a_task(slurm, drawn, "scancel", "--batch", "--signal=USR1")


def cancelled(slurm: Cluster, run: Running, drawn: random.Random) -> bool:
    return _to_a_task(slurm, drawn, "scancel")


def requeued(slurm: Cluster, run: Running, drawn: random.Random) -> bool:
    return _to_a_task(slurm, drawn, "scontrol", "requeue")


def _to_a_task(slurm: Cluster, drawn: random.Random, *command: str) -> bool:
    """Whether there was a task; it may end before the command comes."""
    if not (tasks := slurm.running()):
        return False
    slurm.called(*command, drawn.choice(tasks), check=False)
    return True


def preempted(slurm: Cluster, run: Running, drawn: random.Random) -> bool:
    slurm.called("sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 2")
    return True


def worker_killed(slurm: Cluster, run: Running, drawn: random.Random) -> bool:
    pids = [int(row.owner.split(":")[1]) for row in run.held if row.owner]
    with suppress(ProcessLookupError, IndexError):  # it has just ended
        os.kill(drawn.choice(pids), signal.SIGKILL)
        return True
    return False


def node_lost(slurm: Cluster, run: Running, drawn: random.Random) -> bool:
    node = drawn.choice(NODES)
    slurm.kill_node(node)
    slurm.start_node(node)
    return True


def run_killed(slurm: Cluster, run: Running, drawn: random.Random) -> bool:
    run.process.kill()
    run.process.wait()
    return True


def run_interrupted(slurm: Cluster, run: Running, drawn: random.Random) -> bool:
    run.process.send_signal(signal.SIGINT)
    until(run.ended, "run ends")
    return True


KINDS = (time_limit, cancelled, requeued, preempted, worker_killed, node_lost, run_killed, run_interrupted)
