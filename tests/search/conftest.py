from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ralr_tune.search.session import Session
from ralr_tune.search.stages import plan_search
from ralr_tune.search.tasks import Tasks
from ralr_tune.store import studies
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec

MakeSession = Callable[..., Session]


@pytest.fixture(autouse=True)
def quick_databases(quick_tables: None) -> None:
    """All tests of this folder open databases, none tests their tables."""


@pytest.fixture
def make_session(tmp_path: Path) -> Iterator[MakeSession]:
    """Sessions on one SQLite file, as `run` prepares it for its workers; each has its own storage and cache."""
    with sessions(tmp_path) as make:
        yield make


@contextmanager
def sessions(folder: Path) -> Iterator[MakeSession]:
    """`make_session` in a given folder, for fixtures that several tests share."""
    opened = []
    url = f"sqlite:///{folder}/study.db"

    def make(spec: StudySpec, owner: str = "me", url: str = url) -> Session:
        storage = open_storage(url, create=True)
        opened.append(storage)
        studies.register(storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
        for arm in spec.arms:
            for block in range(1, spec.search.blocks + 1):
                studies.optuna_study(storage, studies.optuna_name(spec.name, arm, block), metric=spec.metric)
        ledger = Ledger(storage, spec.name, spec.storage.lease_s)
        plan_search(ledger, spec, spec.search.trials)
        return Session(spec, storage, ledger, Tasks(spec, device="cpu"), folder / "out", owner)

    try:
        yield make
    finally:
        for storage in opened:
            storage.dispose()
