"""One table of bounds: the study file, the schedules and docs/parameters.md agree with it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from ralr_tune.bounds import BOUNDS, Bounds
from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.kinds.detection.section import DetectionSection
from ralr_tune.kinds.translation.section import TranslationSection
from ralr_tune.schedules.checks import check_parameter
from ralr_tune.studyfile.models import training_keys
from ralr_tune.studyfile.sections import AmplifySection, NoiseSection, ScheduleSection

PARAMETERS = Path(__file__).parents[1] / "docs" / "parameters.md"

TABLES: dict[str, dict[str, Any]] = {
    "": training_keys(KIND).model_fields,
    "task": TranslationSection.model_fields | DetectionSection.model_fields,
    "schedule": ScheduleSection.model_fields,
    "amplify": AmplifySection.model_fields,
    "noise": NoiseSection.model_fields,
}
"""The keys of each table."""

LISTS = {"betas": lambda value: [value, 0.5], "schedule.milestones": lambda value: [value]}
"""Keys that hold several numbers at a time."""


def beside(value: float, step: int, integer: bool) -> Any:
    """The next number up (1) or down (-1)."""
    return int(value) + step if integer else math.nextafter(value, math.inf * step)


def ends(bounds: Bounds) -> dict[Any, bool]:
    """Values at and next to both ends, and whether they are allowed."""
    exact = int if bounds.integer else float
    values = {
        exact(bounds.low): bounds.has_low,
        beside(bounds.low, -1, bounds.integer): False,
        beside(bounds.low, 1, bounds.integer): True,
    }
    if bounds.high < math.inf:
        values |= {
            exact(bounds.high): bounds.has_high,
            beside(bounds.high, 1, bounds.integer): False,
            beside(bounds.high, -1, bounds.integer): True,
        }
    return values


def in_a_study_file(name: str, value: Any) -> bool:
    table, _, key = name.rpartition(".")
    field: TypeAdapter[Any] = TypeAdapter(TABLES[table][key].annotation)
    try:
        field.validate_python(LISTS.get(name, lambda each: each)(value))
    except ValidationError:
        return False
    return True


def in_a_schedule(name: str, value: Any) -> bool:
    try:
        check_parameter(name, value)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", BOUNDS)
def test_a_study_file_accepts_what_the_table_allows(name: str) -> None:
    tried = {value: allowed for value, allowed in ends(BOUNDS[name]).items() if name not in LISTS or value < 1}
    assert {value: in_a_study_file(name, value) for value in tried} == tried


@pytest.mark.parametrize("name", BOUNDS)
def test_schedules_accept_what_the_table_allows_and_unbounded_rates(name: str) -> None:
    tried = ends(BOUNDS[name])
    if BOUNDS[name].max_value is not None:
        tried = {value: allowed or value > 1 for value, allowed in tried.items()}
    assert {value: in_a_schedule(name, value) for value in tried} == tried


def test_every_number_of_a_study_has_a_row() -> None:
    numbers = {
        f"{table}.{key}".lstrip(".")
        for table, found in TABLES.items()
        for key, field in found.items()
        if re.search(r"Range\[|tuple\[.*float", str(field.annotation))
    }
    assert numbers - {"amplify.window", "noise.window"} == BOUNDS.keys()


def test_the_docs_show_the_table() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \| (.*?) \| (.*?) \|$", PARAMETERS.read_text(), flags=re.MULTILINE)
    assert rows == [(name, allowed(row), row.unit, row.meaning) for name, row in BOUNDS.items()]


def allowed(row: Bounds) -> str:
    most = "" if row.max_value is None else f", at most {row.max_value:g}"
    return f"{'whole, ' if row.integer else ''}`{row.interval}`{most}"
