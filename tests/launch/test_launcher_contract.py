"""Every launcher starts workers that finish a study, says how they ended, stops them, and hands over their logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ralr_tune.launch.devices import Place
from ralr_tune.launch.inprocess import InProcess
from ralr_tune.launch.launcher import Job, Launcher
from ralr_tune.launch.local import LocalProcesses
from ralr_tune.search.stages import pending_stage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec
from tests.search.conftest import MakeSession, make_session
from tests.studies import simulated
from tests.waiting import LONG_S, until

__all__ = ["make_session"]

PLACES = [Place(0, "cpu", 1), Place(1, "cpu", 1)]


@pytest.fixture(params=[InProcess, LocalProcesses])
def launcher(request: pytest.FixtureRequest) -> Iterator[Launcher]:
    made = request.param()
    yield made
    made.stop(10)


def ended(launcher: Launcher) -> dict[int, int | None]:
    until(lambda: None not in launcher.poll().values(), "the workers end")
    return launcher.poll()


def job(spec: StudySpec, make_session: MakeSession, out: Path) -> tuple[Job, Ledger]:
    session = make_session(spec)
    return Job(spec.name, session.storage.url, out, until="test"), session.ledger


def test_workers_finish_a_study_and_end_with_0(launcher: Launcher, make_session: MakeSession, tmp_path: Path) -> None:
    spec = simulated(search={"trials": 2}, confirm={"top": 1, "seeds": 2})
    work, ledger = job(spec, make_session, tmp_path)
    for place in PLACES:
        launcher.start(work, place)
    assert ended(launcher) == {0: 0, 1: 0}
    assert pending_stage(spec, ledger.rows()) is None


def test_a_worker_that_fails_says_why(launcher: Launcher, make_session: MakeSession, tmp_path: Path) -> None:
    work, _ = job(simulated(), make_session, tmp_path)
    launcher.start(Job("unheard-of", work.storage_url, tmp_path, "test"), PLACES[0])
    assert ended(launcher) == {0: 1}
    last = launcher.tail(0).splitlines()[-1]
    assert last.startswith("error: ")
    assert "unheard-of" in last
    assert launcher.tail(7) == ""


def test_stopped_workers_give_their_rows_back(launcher: Launcher, make_session: MakeSession, tmp_path: Path) -> None:
    spec = simulated(task={"data": {"seconds_per_epoch": 0.2}}, training={"epochs": 500}, search={"pruner": "none"})
    work, ledger = job(spec, make_session, tmp_path)
    launcher.start(work, PLACES[0])
    until(lambda: any(row.epoch for row in ledger.rows(curves=False)), "an epoch is finished")
    launcher.stop(LONG_S)
    assert launcher.poll() == {0: 130}
    begun = [row for row in ledger.rows() if row.attempt]
    assert [row.state for row in begun] == ["free"]
    assert begun[0].epoch > 0
    launcher.stop(1)  # twice is once
