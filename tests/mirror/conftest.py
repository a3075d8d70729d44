from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import ralr_tune
from ralr_tune.store.database import Storage, open_storage
from tests.studies import simulated


@pytest.fixture(autouse=True)
def quick_databases(quick_tables: None) -> None:
    """All tests of this folder open databases, none tests their tables."""


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a small study with pruned and complete trials, confirmation, twins and test runs."""
    out = tmp_path_factory.mktemp("finished")
    search = {"trials": 6, "pruner_options": {"n_startup_trials": 1, "n_warmup_steps": 1}}
    spec = simulated(search=search, confirm={"top": 1, "seeds": 2})
    ralr_tune.run(spec, out=out, workers=1, launcher="inprocess", progress=False)
    return out / "study.db"


@pytest.fixture
def finished(finished_study: Path, tmp_path: Path) -> Iterator[Storage]:
    copy = shutil.copy(finished_study, tmp_path / "study.db")
    storage = open_storage(f"sqlite:///{copy}")
    yield storage
    storage.dispose()
