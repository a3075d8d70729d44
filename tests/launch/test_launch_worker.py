"""How a worker changes its own process while it runs."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from ralr_tune.launch import worker
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Job
from ralr_tune.search.session import Session
from tests.search.conftest import MakeSession, make_session
from tests.studies import simulated

__all__ = ["make_session"]


def test_the_garbage_collector_ignores_imported_objects_until_the_worker_ends(
    make_session: MakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated(search={"trials": 1}))
    seen: list[int] = []

    def recover(session: object) -> None:
        seen.append(gc.get_freeze_count())
        raise RuntimeError("any error")

    monkeypatch.setattr(worker, "_recover", recover)
    with pytest.raises(RuntimeError, match="any error"):
        worker.work(Job("sim", session.storage.url, tmp_path / "out", "search"), Place(0, "cpu", 1))
    assert seen[0] > 10_000
    assert gc.get_freeze_count() == 0


def test_what_others_have_tested_meanwhile_is_removed_when_the_worker_ends(
    make_session: MakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(simulated(search={"trials": 1}))
    left = tmp_path / "out" / "checkpoints" / "sim-row1.1.ckpt"
    recover = worker._recover

    def recover_before_others_are_done(session: Session) -> None:
        recover(session)
        left.parent.mkdir(parents=True, exist_ok=True)
        left.touch()  # as if row 1 had still needed it at this moment

    monkeypatch.setattr(worker, "_recover", recover_before_others_are_done)
    worker.work(Job("sim", session.storage.url, tmp_path / "out", "search"), Place(0, "cpu", 1))
    assert not left.exists()
