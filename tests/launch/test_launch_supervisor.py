"""What `run` does when a worker ends; the launcher defines what the exit code means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ralr_tune.errors import Interrupted, StorageError, TrialError
from ralr_tune.launch import supervisor
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Ending, Job, Launcher
from ralr_tune.launch.supervisor import Supervisor
from tests.search.conftest import MakeSession, make_session
from tests.studies import simulated

__all__ = ["make_session"]

Supervise = Callable[[Launcher], None]


class Scripted(Launcher):
    """Its workers end immediately, one after the other, with these exit codes."""

    poll_s = 0.0

    def __init__(self, *codes: int) -> None:
        super().__init__()
        self.codes = list(codes)
        self.started = 0
        self.stopped = False

    def places(self, devices: str, workers: int | None) -> list[Place]:
        return [Place(0, "cpu", 1)]

    def start(self, job: Job, place: Place) -> None:
        self.started += 1

    def poll(self) -> dict[int, int | None]:
        return {0: self.codes[self.started - 1]}

    def stop(self, timeout_s: float) -> None:
        self.stopped = True

    def tail(self, index: int, lines: int = 20) -> str:
        return "INFO: began\nerror: my reason"


class Preempting(Scripted):
    """An engine whose code 75 means that it preempted the worker, and 1 that the reason is unknown."""

    def ending(self, code: int) -> Ending:
        return {75: Ending.interrupted, 1: Ending.killed}.get(code, super().ending(code))


@pytest.fixture
def supervise(make_session: MakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervise:
    """Runs a launcher on a study in which no epoch is ever completed; two restarts are allowed."""
    session = make_session(simulated())
    monkeypatch.setattr(supervisor, "MAX_RESTARTS", 2)

    def wait(launcher: Launcher) -> None:
        job = Job("sim", session.storage.url, tmp_path)
        Supervisor(launcher, job, launcher.places("auto", 1), session.ledger).wait(None, lambda: None)

    return wait


@pytest.mark.parametrize(
    ("launcher", "started", "expected"),
    [
        (Scripted(0), 1, []),
        (Scripted(130, 0), 2, ["worker 0 was asked to stop (exit code 130); restarting it"]),
        (Scripted(-9, 0), 2, ["worker 0 was killed (exit code -9); restarting it"]),
        (Preempting(75, 0), 2, ["worker 0 was asked to stop (exit code 75); restarting it"]),
        (Preempting(1, 0), 2, ["worker 0 was killed (exit code 1); restarting it"]),
    ],
)
def test_a_killed_or_interrupted_worker_is_restarted(
    supervise: Supervise, caplog: pytest.LogCaptureFixture, launcher: Scripted, started: int, expected: list[str]
) -> None:
    supervise(launcher)
    assert (launcher.started, launcher.stopped) == (started, True)
    assert caplog.messages == expected


@pytest.mark.parametrize(
    ("launcher", "started", "expected"),
    [
        (Scripted(1, 0), 1, "worker 0 ended with exit code 1: my reason"),
        (Scripted(2, 0), 1, "worker 0 ended with exit code 2: my reason"),
        (Scripted(-9, 1), 2, "worker 0 ended with exit code 1: my reason"),
        (Scripted(-9, 137, 130, 0), 3, "worker 0 ended with exit code 130: my reason"),
    ],
)
def test_a_worker_that_gives_up_or_makes_no_progress_ends_the_study(
    supervise: Supervise, launcher: Scripted, started: int, expected: str
) -> None:
    with pytest.raises(TrialError, match=expected):
        supervise(launcher)
    assert (launcher.started, launcher.stopped) == (started, True)


def test_all_workers_are_stopped_if_one_cannot_be_started(supervise: Supervise) -> None:
    class Unreachable(Scripted):
        def start(self, job: Job, place: Place) -> None:
            raise StorageError("no engine there")

    launcher = Unreachable()
    with pytest.raises(StorageError, match="no engine there"):
        supervise(launcher)
    assert launcher.stopped


def test_a_request_to_stop_is_answered_before_the_workers_have_stopped(
    make_session: MakeSession, tmp_path: Path
) -> None:
    seen = []

    class Slow(Scripted):
        def poll(self) -> dict[int, int | None]:
            raise KeyboardInterrupt

        def stop(self, timeout_s: float) -> None:
            seen.append("stopped")

    session, launcher = make_session(simulated()), Slow()
    job = Job("sim", session.storage.url, tmp_path)
    workers = Supervisor(launcher, job, launcher.places("auto", 1), session.ledger, lambda: seen.append("answered"))
    with pytest.raises(Interrupted, match="interrupted; everything is saved"):
        workers.wait(None, lambda: None)
    assert seen == ["answered", "stopped"]
