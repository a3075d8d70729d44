"""What `run` does when a worker ends: the launcher says what the exit code means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ralr_tune.errors import StorageError, TrialError
from ralr_tune.launch import supervisor
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Ending, Job, Launcher
from ralr_tune.launch.supervisor import Supervisor
from tests.search.conftest import MakeSession, make_session
from tests.studies import simulated

__all__ = ["make_session"]

Supervise = Callable[[Launcher], None]


class Scripted(Launcher):
    """Its workers end at once, one after the other, with these codes."""

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
    """An engine that tells with code 75 that it takes its machine away, and with 1 that it cannot say how it ended."""

    def ending(self, code: int) -> Ending:
        return {75: Ending.interrupted, 1: Ending.killed}.get(code, super().ending(code))


@pytest.fixture
def supervise(make_session: MakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervise:
    """Lets a launcher work on a study in which no epoch is ever finished; two restarts are allowed."""
    session = make_session(simulated())
    monkeypatch.setattr(supervisor, "MAX_RESTARTS", 2)

    def wait(launcher: Launcher) -> None:
        job = Job("sim", session.storage.url, tmp_path)
        Supervisor(launcher, job, launcher.places("auto", 1), session.ledger).wait(None, lambda: None)

    return wait


@pytest.mark.parametrize(
    ("launcher", "started", "said"),
    [
        (Scripted(0), 1, []),
        (Scripted(130, 0), 2, ["worker 0 was asked to stop (code 130); another takes its place"]),
        (Scripted(-9, 0), 2, ["worker 0 was ended from outside (code -9); another takes its place"]),
        (Preempting(75, 0), 2, ["worker 0 was asked to stop (code 75); another takes its place"]),
        (Preempting(1, 0), 2, ["worker 0 was ended from outside (code 1); another takes its place"]),
    ],
)
def test_what_was_ended_from_outside_is_started_again(
    supervise: Supervise, caplog: pytest.LogCaptureFixture, launcher: Scripted, started: int, said: list[str]
) -> None:
    supervise(launcher)
    assert (launcher.started, launcher.stopped) == (started, True)
    assert caplog.messages == said


@pytest.mark.parametrize(
    ("launcher", "started", "said"),
    [
        (Scripted(1, 0), 1, "worker 0 ended with code 1: my reason"),
        (Scripted(2, 0), 1, "worker 0 ended with code 2: my reason"),
        (Scripted(-9, 1), 2, "worker 0 ended with code 1: my reason"),
        (Scripted(-9, 137, 130, 0), 3, "worker 0 ended with code 130: my reason"),
    ],
)
def test_a_worker_that_gives_up_or_gets_nowhere_ends_the_study(
    supervise: Supervise, launcher: Scripted, started: int, said: str
) -> None:
    with pytest.raises(TrialError, match=said):
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
