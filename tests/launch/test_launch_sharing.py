"""The number of workers that share a GPU is passed to each process, which limits its memory before it loads data."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.__main__ import main
from ralr_tune.errors import UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.inprocess import InProcess
from ralr_tune.launch.launcher import Job
from ralr_tune.launch.local import LocalProcesses
from ralr_tune.launch.worker import work
from ralr_tune.machine import sharing
from ralr_tune.search.session import Session
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import parse_study
from tests.cards import GIB, Card, remove
from tests.search.conftest import MakeSession, make_session
from tests.studies import simulated
from tests.waiting import until

__all__ = ["make_session"]

SHARED = Place(2, "cuda:1", 1, sharing=4)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    """Places of the workers that would have started."""
    started: list[Place] = []

    def note(job: Job, place: Place, **options: Any) -> None:
        started.append(place)

    monkeypatch.setattr("ralr_tune.launch.worker.work", note)
    monkeypatch.setattr("ralr_tune.launch.inprocess.work", note)
    return started


@pytest.fixture
def digits(make_session: MakeSession) -> Session:
    """A small study of real images, planned."""
    text = Path("studies/digits.toml").read_text()
    for usual, short in (("epochs = 12", "epochs = 1"), ("trials = 24", "trials = 1")):
        text = text.replace(usual, short)
    return make_session(parse_study(text, source="digits"))


def test_a_process_receives_its_whole_place(
    make_session: MakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: list[Place]
) -> None:
    session, commands = make_session(simulated()), []
    Card(free=80 * GIB).insert(monkeypatch)
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: commands.append(command))
    monkeypatch.setenv("RALR_TUNE_STORAGE", session.storage.url)
    LocalProcesses().start(Job("sim", session.storage.url, tmp_path, "test"), SHARED)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(commands[0][3:])
    assert places == [SHARED]


def test_threads_of_one_process_share_one_memory(tmp_path: Path, places: list[Place]) -> None:
    launcher = InProcess()
    launcher.start(Job("sim", "sqlite://", tmp_path, "test"), SHARED)
    until(lambda: None not in launcher.poll().values(), "the worker ends")
    assert places == [Place(2, "cuda:1", 1, sharing=1)]


def test_a_worker_limits_its_memory_before_it_loads_data(
    digits: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, fractions = Card(free=80 * GIB).insert(monkeypatch), []

    def loaded(*arguments: Any, **options: Any) -> None:
        fractions.append(card.fraction)
        raise UsageError("far enough")

    monkeypatch.setattr("ralr_tune.search.tasks.Tasks.first", loaded)
    with pytest.raises(UsageError, match="far enough"):
        work(Job("digits", digits.storage.url, tmp_path / "out"), SHARED)
    assert fractions == [pytest.approx(0.25 - sharing.OVERHEAD / card.total)]


def test_a_worker_without_enough_memory_changes_no_row(
    digits: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Card(free=GIB // 8).insert(monkeypatch)
    before = digits.ledger.rows()
    with pytest.raises(UsageError, match=r"cuda:1: 0\.125 GiB of 80 GiB free"):
        work(Job("digits", digits.storage.url, tmp_path / "out"), SHARED)
    assert Ledger(digits.storage, "digits").rows() == before
    assert {(row.state, row.attempt) for row in before} == {("free", 0)}


def test_a_worker_on_a_cpu_uses_no_gpu(digits: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove(monkeypatch)
    place = Place(0, "cpu", 1, sharing=4)
    work(Job("digits", digits.storage.url, tmp_path / "out", "search", slots="auto"), place)
    assert {row.state for row in digits.ledger.rows()} == {"done"}


def test_a_simulated_task_uses_no_gpu(
    make_session: MakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove(monkeypatch)
    session = make_session(simulated(search={"trials": 1}))
    work(Job("sim", session.storage.url, tmp_path / "out", "search"), SHARED)
    assert {row.state for row in session.ledger.rows()} == {"done"}
