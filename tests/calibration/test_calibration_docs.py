"""The docs contain the tables that `make calibrate` creates, and the dashboard example gives the documented values."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from tests.calibration import dashboard_case, verdicts
from tests.calibration.importance import CELLS, cells_of
from tests.calibration.tables import Table

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("table", verdicts.TABLES[:2], ids=lambda table: table.title)
def test_every_row_is_in_the_document(table: Table) -> None:
    document = (DOCS / "statistics.md").read_text()
    assert [row.what for row in (make(1) for make in table.rows) if f"| {row.what} |" not in document] == []


def test_the_cells_of_importance_are_in_the_document() -> None:
    document = (DOCS / "importance.md").read_text()
    assert [str(cell) for cell in [*CELLS, *cells_of("digits")] if f"| {cell} |" not in document] == []


def test_the_dashboard_example_gives_the_documented_values() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = dashboard_case.case(draws=0)
    theirs, ours = found.theirs["PED-ANOVA"], found.ours
    assert found.pruned == 22
    assert theirs["probability"].value == pytest.approx(0.66, abs=0.02)
    assert (ours["lr"].verdict, ours["probability"].verdict) == ("matters", "indistinguishable")
