from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ralr_tune.search.session import Session
from ralr_tune.search.stages import plan_search
from ralr_tune.store import studies
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec
from ralr_tune.tasks.load import load_task

MakeSession = Callable[..., Session]


@pytest.fixture
def make_session(tmp_path: Path) -> Iterator[MakeSession]:
    """Sessions on one SQLite file, as `run` leaves it for its workers; each has storage and cache of its own."""
    opened = []
    url = f"sqlite:///{tmp_path}/study.db"

    def make(spec: StudySpec, owner: str = "me", url: str = url) -> Session:
        storage = open_storage(url, create=True)
        opened.append(storage)
        studies.register(storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
        for arm in spec.arms:
            for block in range(1, spec.search.blocks + 1):
                studies.optuna_study(storage, studies.optuna_name(spec.name, arm, block), metric=spec.metric)
        ledger = Ledger(storage, spec.name, spec.storage.lease_s)
        plan_search(ledger, spec, spec.search.trials)
        task = load_task(spec.task, seed=spec.study.seed, device="cpu")
        return Session(spec, storage, ledger, task, tmp_path / "out", owner)

    yield make
    for storage in opened:
        storage.dispose()
