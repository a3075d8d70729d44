"""What `run` and `report` return and print: the card, the most important warnings, and the objects of the API."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from ralr_tune.analysis.card import make_card
from ralr_tune.analysis.edges import Edge
from ralr_tune.analysis.facts import ArmFacts, Facts
from ralr_tune.analysis.missing_evidence import MissingEvidence
from ralr_tune.analysis.next_step import Typed
from ralr_tune.analysis.twins import Twin
from ralr_tune.commands.report import MAX_WARNINGS, Report
from ralr_tune.report.data import Data
from tests.metrics import ACCURACY

NO_ARM = ArmFacts("", {"budget": 0, "complete": 0, "pruned": 0, "diverged": 0, "failed": 0}, 0, None, None, None, None,
                  None, None, {})  # fmt: skip
TWIN = Twin("ralr", 3, "test", 0.002, (0.001, 0.003), 0.01, 5, "better", (0.001, 0.003))
FACTS = Facts(
    "digits", "monotone", ACCURACY, 0.005, 0.95, "test", {"ralr": NO_ARM}, (TWIN,), (), {},
)  # fmt: skip
TABLE = Data("trials", ("arm", "trial", "lr"), [("ralr", 0, 0.1), ("ralr", 1, 0.2)])


def report(facts: Facts) -> Report:
    card = make_card(facts, Typed("ralr-tune run digits", "ralr-tune status digits"))
    return Report("digits", facts, card, Path("report.html"), {}, {}, table=TABLE)


def edge(parameter: str) -> Edge:
    return Edge("ralr", parameter, 0.99, "high", 0.001, 1.0, True, 0.001, 30.0)


def test_what_to_fix_is_noted() -> None:
    facts = replace(FACTS, lacks=(MissingEvidence("few trials", "ralr", 6),), edges=(edge("lr"),))
    first, second = report(facts).notes
    assert first == "ralr has 6 finished trials: too few to judge parameters or rates."
    assert second.startswith("ralr's best lr (0.99) lies at the high end")
    assert report(facts).as_text().endswith(f"\n\n{first}\n{second}")


def test_many_warnings_are_shortened_with_a_count() -> None:
    facts = replace(FACTS, edges=tuple(edge(f"parameter{index}") for index in range(MAX_WARNINGS + 2)))
    notes = report(facts).notes
    assert len(notes) == MAX_WARNINGS + 1
    assert notes[-1] == "2 more like these in the report."


def test_without_warnings_there_are_no_notes() -> None:
    assert report(FACTS).notes == []


def test_a_notebook_shows_the_card_and_repr_one_line() -> None:
    made = report(FACTS)
    assert repr(made) == (
        "<Report of digits: Amplification improves ralr's recipe by 0.2 points, between 0.1 and 0.3. report.html>"
    )
    html = made._repr_html_()
    assert html.startswith("<style>.ralr-card")
    assert "Amplification <strong>improves</strong> ralr" in html
    assert "<button" not in html  # a notebook has no script that serves it
    assert made.answer.startswith("Amplification improves ralr's recipe by 0.2 points, between 0.1 and 0.3. ")


def test_verdicts_are_every_comparison() -> None:
    assert report(FACTS).verdicts == (TWIN,)


def test_trials_are_a_frame_or_otherwise_dicts(monkeypatch: pytest.MonkeyPatch) -> None:
    class DataFrame(NamedTuple):
        rows: list[list[Any]]
        columns: list[str]

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=DataFrame))
    assert report(FACTS).trials() == ([["ralr", 0, 0.1], ["ralr", 1, 0.2]], ["arm", "trial", "lr"])
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert report(FACTS).trials() == [{"arm": "ralr", "trial": 0, "lr": 0.1}, {"arm": "ralr", "trial": 1, "lr": 0.2}]


def test_json_adds_the_card_to_the_facts() -> None:
    found = report(FACTS).as_json()
    assert found["study"] == "digits"
    assert found["card"]["verdict"] == report(FACTS).card.verdict
