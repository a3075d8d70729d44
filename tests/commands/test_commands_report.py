"""What `run` and `report` print after the answer: the most important warnings, and never many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ralr_tune.analysis.cost import cost
from ralr_tune.analysis.edges import Edge
from ralr_tune.analysis.facts import ArmFacts, Facts
from ralr_tune.analysis.missing_evidence import MissingEvidence
from ralr_tune.analysis.twins import Twin
from ralr_tune.commands.report import MAX_WARNINGS, Report
from tests.metrics import ACCURACY

NO_ARM = ArmFacts("", {"budget": 0}, 0, None, None, None, None, None, None, {})
TWIN = Twin("ralr", 3, "test", 0.002, (0.001, 0.003), 0.01, 5, "better")
FACTS = Facts(
    "digits", "monotone", ACCURACY, 0.005, 0.95, "test", {"ralr": NO_ARM}, (TWIN,), (), {},
)  # fmt: skip


def report(facts: Facts) -> Report:
    return Report("digits", facts, Path("report.html"), (), cost(()))


def edge(parameter: str) -> Edge:
    return Edge("ralr", parameter, 0.99, "high", 0.001, 1.0, True, 0.001, 30.0)


def test_twins_come_first_then_what_to_fix() -> None:
    facts = replace(FACTS, lacks=(MissingEvidence("few trials", "ralr", 6),), edges=(edge("lr"),))
    first, second, third = report(facts).notes
    assert first.startswith("ralr's configuration against its twin")
    assert second == "ralr has 6 finished trials: too few to judge parameters or rates."
    assert third.startswith("ralr's best lr (0.99) lies at the high end")


def test_many_warnings_are_shortened_with_a_count() -> None:
    facts = replace(FACTS, edges=tuple(edge(f"parameter{index}") for index in range(MAX_WARNINGS + 2)))
    notes = report(facts).notes
    assert len(notes) == 1 + MAX_WARNINGS + 1
    assert notes[-1] == "2 more like these in the report."


def test_without_warnings_there_are_no_notes() -> None:
    assert report(replace(FACTS, twins=())).notes == []
