"""`search.budget` and [split]: what is allowed, what they fill in, and what a change of them means."""

from __future__ import annotations

from typing import Any

import pytest

from ralr_tune.studyfile import parse_study
from ralr_tune.studyfile.budgets import Budget, SplitSection, parse_budget
from ralr_tune.studyfile.changes import changes
from tests.studies import budgeted_text, simulated
from tests.studyfile.design_file import complaints

FORMS = 'must be "12 device hours", "90 device minutes" or "600 epochs"'
SPLIT = SplitSection(epochs=600, trials=30, seeds=7)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("12 device hours", Budget(12, "device hours")),
        ("1.5 Device Hour", Budget(1.5, "device hours")),
        (" 90 device  minutes ", Budget(90, "device minutes")),
        ("600epochs", Budget(600, "epochs")),
        ("1 epoch", Budget(1, "epochs")),
    ],
)
def test_forms_of_a_budget(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


def test_time_is_converted_with_the_duration_of_an_epoch() -> None:
    assert parse_budget("1.5 device hours").epochs(2.0) == 2700
    assert parse_budget("600 epochs").epochs(None) == 600
    assert parse_budget("1 device minutes").epochs(None) is None
    assert parse_budget("1 device minutes").epochs(0.0) is None  # no time at all says nothing


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        ("12 hours", f'{FORMS}; did you mean "12 device hours"?'),
        ("90 min", f'{FORMS}; did you mean "90 device minutes"?'),
        ("12 device hrs", f'{FORMS}; did you mean "12 device hours"?'),
        ("600 epcohs", f'{FORMS}; did you mean "600 epochs"?'),
        (600, f'{FORMS}; did you mean "600 epochs"?'),
        ("much", FORMS),
        ("-3 epochs", FORMS),
        (True, FORMS),
        ("6.5 epochs", 'epochs are whole; did you mean "6 epochs"?'),
        ("0 epochs", 'must be above 0, such as "12 device hours", "90 device minutes" or "600 epochs"'),
        ("1e99 epochs", FORMS),
        ("9999999999 epochs", "must be at most 999999999"),
    ],
)
def test_another_budget_is_refused_with_the_nearest_form(budget: Any, line: str) -> None:
    (found,) = complaints(budgeted_text(budget))
    assert found.startswith("search.budget = ")
    assert found.partition(": ")[2] == line


@pytest.mark.parametrize(
    ("search", "confirm", "line"),
    [
        (
            {"trials": 8},
            {"seeds": 5},
            "search.trials = 8 and confirm.seeds = 5 are fixed, which leaves nothing to choose",
        ),
        ({"trials": 8}, {"seeds": "auto", "most_seeds": 9}, "search.trials = 8 and confirm.most_seeds = 9 are fixed"),
    ],
)
def test_a_budget_for_fixed_numbers_is_a_contradiction(
    search: dict[str, Any], confirm: dict[str, Any], line: str
) -> None:
    (found,) = complaints(budgeted_text("600 epochs", search=search, confirm=confirm))
    assert found.startswith(f'search.budget = "600 epochs": {line}')


def test_neither_trials_nor_budget() -> None:
    text = budgeted_text("600 epochs").replace('budget = "600 epochs"', "")
    assert complaints(text) == ["search.trials is missing; give it, or search.budget"]


@pytest.mark.parametrize(
    ("search", "confirm", "seeds"),
    [({}, {}, ("seeds", 7)), ({"trials": 30}, {}, ("seeds", 7)), ({}, {"seeds": "auto"}, ("most_seeds", 7))],
)
def test_a_split_fills_in_trials_and_seeds(search: dict[str, Any], confirm: dict[str, Any], seeds: Any) -> None:
    given = parse_study(budgeted_text("600 epochs", search=search, confirm=confirm))
    assert given.needs_split
    spec = given.with_split(SPLIT)
    assert (spec.search.trials, getattr(spec.confirm, seeds[0])) == (30, seeds[1])
    again = parse_study(spec.text)  # the text is what workers read
    assert not again.needs_split
    assert (again.fingerprint, again.file) == (spec.fingerprint, spec.file)


def test_a_split_against_the_file_is_refused() -> None:
    spec = parse_study(budgeted_text("600 epochs", search={"trials": 8}))
    (line,) = complaints(spec.with_split(SPLIT).text)
    assert line == "split.trials = 30: but search.trials = 8; leave out [split]"
    alone = simulated().with_split(SPLIT).text
    assert complaints(alone) == ["split: only allowed with search.budget, which it was chosen from"]


def test_a_changed_budget_is_applied_as_its_split() -> None:
    before = parse_study(budgeted_text("600 epochs")).with_split(SPLIT)
    after = parse_study(budgeted_text("900 epochs")).with_split(SPLIT.model_copy(update={"trials": 50}))
    found = {change.key: (change.before, change.after, change.applied) for change in changes(before, after)}
    assert found == {"search.trials": (30, 50, True), "search.budget": ("600 epochs", "900 epochs", True)}
