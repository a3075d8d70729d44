"""Imports stay light: only `scheduler` may import torch, and no module imports Optuna, plotly or SQLAlchemy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ralr_tune.schedules

ROOT = Path(next(iter(ralr_tune.schedules.__path__))).parents[1]
PURE = ("checks", "curves", "perturbation", "amplification", "noise", "rate", "suggest", "weight_decay")
HEAVY = ("torch", "optuna", "plotly", "sqlalchemy")


def heavy_imports(*modules: str) -> set[str]:
    """The heavy packages in sys.modules of a fresh interpreter that has imported these modules."""
    imports = "; ".join(f"import ralr_tune.schedules.{module}" for module in modules)
    code = f"import sys; {imports}; print(*({HEAVY!r} & sys.modules.keys()))".replace(repr(HEAVY), repr(set(HEAVY)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return set(run.stdout.split())


def test_pure_modules_import_nothing_heavy() -> None:
    assert heavy_imports(*PURE) == set()


def test_the_check_above_can_fail() -> None:
    assert "torch" in heavy_imports("scheduler")


def test_all_modules_except_the_one_for_torch_are_listed_above() -> None:
    there = {path.stem for path in (ROOT / "ralr_tune" / "schedules").glob("*.py")}
    assert there == {*PURE, "scheduler", "listed", "__init__"}


@pytest.mark.parametrize("module", PURE)
def test_each_module_imports_alone(module: str) -> None:
    """An import cycle would fail in one of them."""
    assert heavy_imports(module) == set()
