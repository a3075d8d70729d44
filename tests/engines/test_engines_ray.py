"""A real Ray cluster of one head and three nodes on loopback addresses, and its faults at random moments."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.engines.running import FAULTS, WORKERS, Faults, Running, study_text
from tests.faults.storm import violations
from tests.faults.test_faults_storm import NO_VIOLATIONS
from tests.waiting import LONG_S, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason='no Ray here; pip install "ralr-tune[ray]"'),
]

HEAD = "127.0.0.2"  # not 127.0.0.1, which Ray replaces by the machine's outer address


class Nodes:
    """The nodes of the cluster."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "node_ip_address": HEAD, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._numbers = iter(range(3, 250))
        self.nodes: list[Any] = []
        for _ in range(WORKERS):
            self.add()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> None:
        self.nodes.append(self._cluster.add_node(num_cpus=1, node_ip_address=f"127.0.0.{next(self._numbers)}"))

    def remove(self, node: Any, *, orderly: bool) -> None:
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=orderly)

    def end(self) -> None:
        self._cluster.shutdown()


@contextmanager
def cluster(home: Path) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("RAY_TMPDIR", "/tmp")  # the paths of its sockets must be short
        patch.setenv("RAY_kill_child_processes_on_worker_exit", "0")  # a worker ends in order if its task dies
        patch.setenv("RAY_raylet_start_wait_time_s", f"{LONG_S:g}")  # 30 s are too few on a busy machine, ...
        patch.setenv("RAY_agent_register_timeout_ms", f"{1000 * LONG_S:g}")  # ... as are these
        made = Nodes()
        try:
            yield made
        finally:
            made.end()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with cluster(tmp_path_factory.mktemp("ray")) as made:
        yield made


def launcher(nodes: Nodes) -> list[str]:
    """Options of `run`."""
    options = (f"address={nodes.address}", f"node-ip={HEAD}")
    return ["--launcher", "ray", *(each for option in options for each in ("--launcher-option", option))]


@pytest.fixture
def url(new_database: Callable[..., str]) -> str:
    return new_database("postgresql")


def started(nodes: Nodes, text: str, url: str, out: Path) -> Running:
    return Running(text, url, out, *launcher(nodes))


def test_a_study_runs_to_its_answer(nodes: Nodes, url: str, tmp_path: Path) -> None:
    run = started(nodes, study_text("whole", trials=3), url, tmp_path / "out")
    until(run.ended, "run ends")
    assert run.process.returncode == 0, run.log()
    assert violations(url, run.spec, run.out) == NO_VIOLATIONS
    assert (run.out / "report.html").exists()


def test_ctrl_c_frees_every_row(nodes: Nodes, url: str, tmp_path: Path) -> None:
    run = started(nodes, study_text("interrupted"), url, tmp_path / "out")
    until(lambda: len(run.held) == WORKERS, "all workers train")
    run.process.send_signal(signal.SIGINT)
    until(run.ended, "run ends")
    assert run.process.returncode == 130, run.log()
    assert not run.held


def test_faults_of_the_engine(nodes: Nodes, url: str, tmp_path: Path) -> None:
    faults, number = Faults(nodes, KINDS, pause_s=(1.0, 4.0)), 0
    while faults.counted.total() < FAULTS:
        run = started(nodes, study_text(f"storm{number}"), url, tmp_path / f"out{number}")
        faults.strike(run)
        until(lambda: not _workers(run.out), "no worker is left", within_s=60)  # noqa: B023
        assert violations(url, run.spec, run.out) == NO_VIOLATIONS
        assert "[state-dump]" not in run.log()  # what Ray prints when it loses a node
        number += 1
        print(f"\n{faults.counted.total()} faults in {number} studies{faults.table()}", flush=True)


def _workers(out: Path) -> list[psutil.Process]:
    """Processes of this study's workers."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if "worker" in words and str(out) in words:
                found.append(process)
    return found


# ---------------------------------------------------------------- the faults: each says whether it found a target


def node_killed(nodes: Nodes, run: Running, drawn: random.Random) -> bool:
    nodes.remove(drawn.choice(nodes.nodes), orderly=False)
    nodes.add()
    return True


def node_removed(nodes: Nodes, run: Running, drawn: random.Random) -> bool:
    nodes.remove(drawn.choice(nodes.nodes), orderly=True)
    nodes.add()
    return True


def task_killed(nodes: Nodes, run: Running, drawn: random.Random) -> bool:
    """Ray's own process, the parent of a worker."""
    return _signalled([process.parent() for process in _workers(run.out)], signal.SIGKILL, drawn)


def worker_killed(nodes: Nodes, run: Running, drawn: random.Random) -> bool:
    return _signalled(_workers(run.out), signal.SIGKILL, drawn)


def worker_stopped(nodes: Nodes, run: Running, drawn: random.Random) -> bool:
    return _signalled(_workers(run.out), signal.SIGTERM, drawn)


def _signalled(processes: list[psutil.Process | None], number: signal.Signals, drawn: random.Random) -> bool:
    """Sends a signal to one of them."""
    found = [process for process in processes if process is not None and process.pid != 1]
    if not found:
        return False
    with suppress(psutil.NoSuchProcess):
        drawn.choice(found).send_signal(number)
        return True
    return False


def run_killed(nodes: Nodes, run: Running, drawn: random.Random) -> bool:
    run.process.kill()
    run.process.wait()
    return True


def run_interrupted(nodes: Nodes, run: Running, drawn: random.Random) -> bool:
    run.process.send_signal(signal.SIGINT)
    until(run.ended, "run ends")
    return True


KINDS = (node_killed, node_removed, task_killed, worker_killed, worker_stopped, run_killed, run_interrupted)
