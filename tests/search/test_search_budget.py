"""The split of a budget: as much as fits, never more, and what the file fixes stays."""

from __future__ import annotations

from typing import Any

import pytest

from ralr_tune.analysis.power import ENOUGH_PAIRS
from ralr_tune.search.budget import (
    CONFIRM_SHARE,
    USUAL_SEEDS,
    budget_sentence,
    least_split,
    problems_of_budget,
    split_at_once,
)
from ralr_tune.search.forecast import confirm_runs, most_epochs
from ralr_tune.studyfile import StudySpec, parse_study
from tests.studies import budgeted_text

EPOCHS = 4


def budgeted(epochs: int, **changes: Any) -> StudySpec:
    return parse_study(budgeted_text(f"{epochs} epochs", **changes))


def larger(spec: StudySpec, **more: int) -> int:
    """The epochs of the study with a larger split."""
    assert spec.file.split is not None
    update = {key: getattr(spec.file.split, key) + number for key, number in more.items()}
    return most_epochs(spec.with_split(spec.file.split.model_copy(update=update)))


@pytest.mark.parametrize("epochs", [112, 300, 800, 5000])
@pytest.mark.parametrize("confirm", [{}, {"seeds": "auto"}, {"top": 1}])
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_split_takes_as_much_as_fits(epochs: int, confirm: dict[str, Any], blocks: int) -> None:
    spec = split_at_once(budgeted(epochs, confirm=confirm, search={"blocks": blocks}))
    if spec.needs_split:
        assert epochs < least_split(spec).epochs
        return
    assert most_epochs(spec) <= epochs < larger(spec, trials=1)
    seeds, confirming = spec.confirm.max_seeds, confirm_runs(spec) * EPOCHS
    assert ENOUGH_PAIRS <= seeds <= USUAL_SEEDS
    assert seeds == ENOUGH_PAIRS or confirming <= CONFIRM_SHARE * epochs
    assert spec.search.blocks == blocks


def test_what_the_file_fixes_stays() -> None:
    few = split_at_once(budgeted(800, search={"trials": 10}))
    assert few.search.trials == 10
    assert most_epochs(few) <= 800 < larger(few, seeds=1)  # the rest is for seeds, more than usually
    assert few.confirm.seeds > USUAL_SEEDS
    many = split_at_once(budgeted(800, confirm={"seeds": 9}))
    assert many.confirm.seeds == 9
    assert most_epochs(many) <= 800 < larger(many, trials=1)


@pytest.mark.parametrize(
    "changes", [{}, {"confirm": {"seeds": 9}}, {"search": {"trials": 12}}, {"search": {"blocks": 3}}]
)
def test_a_budget_below_the_least_of_a_verdict_names_that_least(changes: dict[str, Any]) -> None:
    least = least_split(budgeted(1, **changes)).epochs
    assert not list(problems_of_budget(budgeted(least, **changes)))
    assert most_epochs(split_at_once(budgeted(least, **changes))) == least
    small = budgeted(least - 1, **changes)
    assert split_at_once(small) is small
    (problem,) = problems_of_budget(small)
    start = f'search.budget = "{least - 1} epochs": too little for a verdict, which needs at least {least} epochs: '
    assert problem.line.startswith(start)


def test_the_least_of_a_budget_of_time_is_in_its_unit() -> None:
    spec = parse_study(budgeted_text("2 device minutes"))
    assert not list(problems_of_budget(spec))  # unknown without a timing
    (problem,) = problems_of_budget(spec, 3.0)
    assert "at least 5.6 device minutes (112 epochs of 3 s): 2 trials per arm and block, 4 seeds" in problem.line
    assert not list(problems_of_budget(spec, 1.0))


def test_the_split_is_stated() -> None:
    assert budget_sentence(budgeted(800)) is None
    split = split_at_once(budgeted(800, search={"blocks": 3}, confirm={"seeds": "auto", "most_seeds": 4}))
    assert budget_sentence(split) == (
        f"budget of 800 epochs: {split.search.trials} trials per arm and block (3 blocks), up to 4 seeds; "
        f"at most {most_epochs(split)} epochs"
    )
