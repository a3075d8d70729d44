"""Where a study is stored: the option, then the variable, then the study file, then the out folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ralr_tune.store.location import given_url, storage_url
from tests.studies import simulated

FILED = simulated(storage={"url": "postgresql://file/x"})


@pytest.mark.parametrize(
    ("option", "variable", "said"),
    [
        ("mysql://option/x", "mysql://variable/x", "mysql://option/x"),
        (None, "mysql://variable/x", "mysql://variable/x"),
        (None, "", "postgresql://file/x"),
        (None, None, "postgresql://file/x"),
    ],
)
def test_the_most_specific_setting_wins(
    monkeypatch: pytest.MonkeyPatch, option: str | None, variable: str | None, said: str
) -> None:
    monkeypatch.delenv("RALR_TUNE_STORAGE", raising=False)
    if variable is not None:
        monkeypatch.setenv("RALR_TUNE_STORAGE", variable)
    assert storage_url(option, FILED, Path("out")) == said
    assert given_url(option) == (None if said == "postgresql://file/x" else said)


def test_without_a_setting_it_is_a_file_in_the_out_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RALR_TUNE_STORAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    for spec in (None, simulated()):
        assert storage_url(None, spec, Path("out")) == f"sqlite:///{tmp_path}/out/study.db"


def test_the_module_imports_no_database_code() -> None:
    script = "import sys, ralr_tune.store.location; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
