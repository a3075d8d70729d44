"""What a study takes from an earlier one: pure, on records made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.records import ArmRecord, Row, StudyRecord
from ralr_tune.search.warm_start import recipe_of, warm_start
from ralr_tune.studyfile import StudySpec
from tests.studies import simulated

AMPLIFIED = {"amplify.probability": 0.3, "amplify.lower": 1.5, "amplify.width": 2.0}


def row(arm: str, trial: int, value: float, **params: Any) -> Row:
    return Row(
        id=trial, arm=arm, stage="search", block=1, ordinal=trial, role="", source=None, seed=0,
        params={"lr": 0.1, "weight_decay": 1e-3} | params, trial=trial, state="done", attempt=1, owner=None,
        outcome="complete", failure=None, message=None, epoch=4, value=value, train_value=None, curve=(),
        seconds=None, started=None, finished=None,
    )  # fmt: skip


def record(spec: StudySpec, arms: Mapping[str, list[Row]]) -> StudyRecord:
    """The record of an earlier study with these search rows."""
    return StudyRecord(
        name=spec.name, spec_text=spec.text, fingerprint=spec.fingerprint, storage="", created=0.0, environment={},
        baseline=spec.study.baseline, metric=spec.metric, margin=spec.margin, confidence=0.95,
        arms={name: ArmRecord(name, spec.dimensions(name), tuple(rows)) for name, rows in arms.items()},
    )  # fmt: skip


def earlier(**changes: Any) -> StudyRecord:
    """An earlier study: two trials of monotone, three of ralr."""
    rows = {
        "monotone": [row("monotone", 0, 0.9, lr=0.2), row("monotone", 1, 0.95, lr=0.3)],
        "ralr": [
            row("ralr", 0, 0.5, lr=0.4, **AMPLIFIED),
            row("ralr", 1, 0.7, lr=0.5, **AMPLIFIED),
            row("ralr", 2, 0.6, lr=0.3, **AMPLIFIED),
        ],
    }
    spec = simulated(study={"name": "before"}, **changes)
    return record(spec, {arm: found for arm, found in rows.items() if arm in spec.arms})


def later(**changes: Any) -> StudySpec:
    search = {"trials": 16, "start_from": "before"} | changes.pop("search", {})
    return simulated(search=search, **changes)


def test_arms_take_turns_best_first_and_no_arm_gets_a_copy() -> None:
    taken = warm_start(later(), earlier())
    assert [(each.arm, each.trial) for each in taken.trials] == [
        ("monotone", 1), ("ralr", 1), ("monotone", 0), ("ralr", 0)
    ]  # fmt: skip
    # ralr's trial 2 has the shared values of monotone's trial 1: a copy in the arm monotone


def test_every_arm_gets_the_shared_values_and_only_what_it_searches() -> None:
    spec = later()
    taken = warm_start(spec, earlier())
    shared = {"lr": 0.5, "weight_decay": 1e-3}
    assert recipe_of(spec, "monotone", 1, taken) == shared
    assert recipe_of(spec, "ralr", 1, taken) == shared | AMPLIFIED
    assert recipe_of(spec, "ralr", 0, taken) == {"lr": 0.3, "weight_decay": 1e-3}
    assert recipe_of(spec, "ralr", 4, taken) == {}


def test_it_comes_after_the_users_own_recipes_and_takes_a_quarter_of_the_rest() -> None:
    spec = later(search={"trials": 10, "start": [{"lr": 0.1}, {"lr": 0.2}]})
    taken = warm_start(spec, earlier())
    assert len(taken.trials) == 2
    assert [bool(recipe_of(spec, "monotone", ordinal, taken)) for ordinal in range(5)] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_values_outside_the_new_ranges_are_left_to_the_sampler_and_named() -> None:
    spec = later(training={"lr": {"low": 0.35, "high": 1.0, "log": True}})
    taken = warm_start(spec, earlier())
    assert recipe_of(spec, "ralr", 0, taken) == {"weight_decay": 1e-3}
    assert taken.notes == ("lr: 3 of 5 trials of before lie outside of 0.35 to 1.0 (log); these values are left out",)


def test_fixed_values_of_the_earlier_study_and_another_form_of_the_upper_end_are_taken() -> None:
    before = earlier(arms={"monotone": {}, "ralr": {"amplify": {"probability": 0.3, "lower": 1.5, "width": 2.0}}})
    ends = {"probability": {"low": 0.1, "high": 0.6}, "lower": 1.0, "upper": {"low": 1.0, "high": 5.0}}
    spec = later(arms={"monotone": {}, "ralr": {"amplify": ends}})
    taken = warm_start(spec, before)
    assert recipe_of(spec, "ralr", 1, taken) == {
        "lr": 0.5, "weight_decay": 1e-3, "amplify.probability": 0.3, "amplify.upper": 3.5
    }  # fmt: skip


def test_what_differs_is_named() -> None:
    notes = warm_start(later(training={"epochs": 7}, study={"metric": "error"}), earlier()).notes
    assert "before ranks its trials by accuracy (maximize), not by error (minimize)" in notes
    assert "training.epochs: 4 -> 7 (in before -> here)" in notes
    searched = warm_start(
        later(training={"weight_decay": 0.1, "clip_norm": {"low": 0.1, "high": 1.0}}), earlier()
    ).notes
    assert "weight_decay: not searched here; ignored" in searched
    assert "clip_norm: no trial of before had it; the sampler proposes it" in searched


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"lr": {"low": 2.0, "high": 3.0}, "weight_decay": 0.1}}, "arm monotone searches lr (2.0 to 3.0)"),
        ({"training": {"optimizer": "adamw"}}, "nothing fits"),
    ],
    ids=["ranges", "optimizer"],
)
def test_a_study_of_which_nothing_fits_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match="nothing fits") as refused:
        warm_start(later(**changes), earlier())
    assert message in str(refused.value)


def test_a_study_without_a_complete_trial_is_refused() -> None:
    whole = earlier()
    empty = replace(whole, arms={name: replace(arm, rows=()) for name, arm in whole.arms.items()})
    with pytest.raises(UsageError, match="none of its search trials is complete"):
        warm_start(later(), empty)
