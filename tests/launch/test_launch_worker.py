"""How a worker changes its own process while it runs."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from ralr_tune.launch import worker
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Job
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
