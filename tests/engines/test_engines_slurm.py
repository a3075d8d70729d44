"""A real Slurm: the whole command, and faults of the engine at random moments. Nothing may be lost, twice, or stuck."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.engines.running import FAULTS, LEASE_S, WORKERS, Running, study_text
from tests.engines.slurm_cluster import NODES, Cluster, cluster, obstacle
from tests.faults.storm import violations
from tests.faults.test_faults_storm import NO_VIOLATIONS
from tests.waiting import LONG_S, until

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
    drawn, counted, number = random.Random(1), Counter[str](), 0
    while counted.total() < FAULTS:
        run = started(study_text(f"storm{number}"), url, tmp_path / f"out{number}")
        _storm(slurm, run, drawn, counted)
        assert violations(url, run.spec, run.out) == NO_VIOLATIONS
        assert not slurm.called("squeue", "-h").strip()
        number += 1
    print(f"\n{counted.total()} faults in {number} studies: {dict(counted)}")


def _storm(slurm: Cluster, run: Running, drawn: random.Random, counted: Counter[str]) -> None:
    """Faults until there are enough or the study is finished; then waits for its end."""
    end = time.monotonic() + LONG_S * 4
    while run.pending is not None:
        assert time.monotonic() < end, f"stuck: {run.log()}"
        if run.ended():
            run.start()
        time.sleep(drawn.uniform(1.0, 3.0))
        if counted.total() < FAULTS and run.held and slurm.running():
            name = drawn.choice(sorted(KINDS))
            KINDS[name](slurm, run, drawn)
            counted[name] += 1
        slurm.hurry()
    until(run.ended, "run ends")


def _task(slurm: Cluster, drawn: random.Random) -> str:
    return drawn.choice(slurm.running() or ["none"])


def time_limit(slurm: Cluster, run: Running, drawn: random.Random) -> None:
    """What Slurm sends before the limit."""
    slurm.called("scancel", "--batch", "--signal=USR1", _task(slurm, drawn), check=False)


def cancelled(slurm: Cluster, run: Running, drawn: random.Random) -> None:
    slurm.called("scancel", _task(slurm, drawn), check=False)


def requeued(slurm: Cluster, run: Running, drawn: random.Random) -> None:
    slurm.called("scontrol", "requeue", _task(slurm, drawn), check=False)


def preempted(slurm: Cluster, run: Running, drawn: random.Random) -> None:
    slurm.called("sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 2")


def worker_killed(slurm: Cluster, run: Running, drawn: random.Random) -> None:
    pids = [int(row.owner.split(":")[1]) for row in run.held if row.owner]
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(drawn.choice(pids or [2**22]), signal.SIGKILL)


def node_lost(slurm: Cluster, run: Running, drawn: random.Random) -> None:
    node = drawn.choice(NODES)
    slurm.kill_node(node)
    slurm.start_node(node)


def run_killed(slurm: Cluster, run: Running, drawn: random.Random) -> None:
    run.process.kill()
    run.process.wait()


def run_interrupted(slurm: Cluster, run: Running, drawn: random.Random) -> None:
    run.process.send_signal(signal.SIGINT)
    until(run.ended, "run ends")


KINDS: dict[str, Callable[[Cluster, Running, random.Random], None]] = {
    each.__name__: each
    for each in (time_limit, cancelled, requeued, preempted, worker_killed, node_lost, run_killed, run_interrupted)
}
