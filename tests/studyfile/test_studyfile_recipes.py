"""`search.start`: recipes by parameter name, and the tables of an exported configuration pasted as they are."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import tomli_w

from ralr_tune.errors import StudyFileError
from ralr_tune.search.samplers import start_recipe
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.studyfile.recipes import RecipeValue, recipe_values
from tests.studies import AMPLIFY, simulated, simulated_text

FOUND = {"lr": 0.05, "weight_decay": 1e-4, "amplify.probability": 0.3, "amplify.lower": 1.5, "amplify.width": 2.5}


def started(recipe: dict[str, Any], **changes: dict[str, Any]) -> StudySpec:
    return parse_study(simulated_text(search={"start": [recipe]}, **changes), source="x.toml")


def pasted(spec: StudySpec, arm: str) -> dict[str, Any]:
    """The tables that an export of these values has, as TOML gives them back."""
    found = spec.configuration(arm, FOUND).model_dump(exclude_none=True, exclude={"task"})
    tables = {"task": spec.task.model_dump(exclude_none=True), **found, "provenance": {"study": "sim", "trial": 3}}
    return tomllib.loads(tomli_w.dumps(tables))


@pytest.mark.parametrize(
    "recipe",
    [
        FOUND,
        {"lr": 0.05, "weight_decay": 1e-4, "amplify": {"probability": 0.3, "lower": 1.5, "width": 2.5}},
        {"training": {"lr": 0.05, "weight_decay": 1e-4}, "amplify": {"probability": 0.3, "lower": 1.5, "width": 2.5}},
        pasted(simulated(), "ralr"),
    ],
    ids=["names", "dotted", "tables", "whole"],
)
def test_a_recipe_means_the_same_in_every_form(recipe: dict[str, Any]) -> None:
    spec = started(recipe)
    assert start_recipe(spec, "ralr", 0) == FOUND
    assert start_recipe(spec, "monotone", 0) == {"lr": 0.05, "weight_decay": 1e-4}


def test_a_searched_optimizer_curve_and_task_are_taken_from_an_export() -> None:
    task = {"kind": "classification", "data": {"source": "digits"}}
    changes: dict[str, Any] = {
        "task": task | {"model": {"choices": ["resnet20", "small_cnn"]}},
        "training": {"optimizer": "sgd", "momentum": {"low": 0.0, "high": 0.99}},
        "schedule": {"name": "multistep", "milestones": [1, 2], "gamma": {"low": 0.05, "high": 0.5}},
    }
    recipe = {
        "task": task | {"model": "small_cnn", "pretrained": False},
        "training": {"optimizer": "sgd", "options": {"momentum": 0.9}},
        "schedule": {"name": "multistep", "options": {"milestones": [1, 2], "gamma": 0.1}},
    }
    found = start_recipe(started(recipe, **changes), "monotone", 0)
    assert found == {"momentum": 0.9, "schedule.gamma": 0.1, "task.model": "small_cnn"}


UPPER: dict[str, Any] = {"probability": {"low": 0.1, "high": 0.5}, "lower": 1.1, "upper": {"low": 2.0, "high": 6.0}}


@pytest.mark.parametrize(
    ("amplify", "recipe", "found"),
    [
        (AMPLIFY, {"lower": 1.1, "upper": 2.3}, {"amplify.lower": 1.1, "amplify.width": 1.2}),
        (UPPER, {"lower": 1.1, "upper": 2.3}, {"amplify.upper": 2.3}),
        (UPPER, {"lower": 1.1, "width": 1.2}, {"amplify.upper": 2.3}),
        (UPPER, {"width": 1.2}, {"amplify.upper": 2.3}),
        (UPPER | {"upper": 2.3}, {"probability": 0.3, "lower": 1.1, "width": 1.2}, {"amplify.probability": 0.3}),
        ({"probability": 0.3, "lower": 1.1, "width": 1.2}, {"probability": 0.3, "upper": 2.3}, {}),
    ],
)
def test_the_upper_end_may_be_given_in_both_forms(
    amplify: dict[str, Any], recipe: dict[str, Any], found: dict[str, float]
) -> None:
    spec = started({"amplify": recipe}, arms={"monotone": {}, "ralr": {"amplify": amplify}})
    assert start_recipe(spec, "ralr", 0) == found
    assert start_recipe(spec, "monotone", 0) == {}


def test_an_export_starts_an_arm_that_gives_the_upper_end() -> None:
    spec = simulated(arms={"monotone": {}, "ralr": {"amplify": UPPER}})
    point = {"lr": 0.05, "weight_decay": 1e-4, "amplify.probability": 0.3, "amplify.upper": 4.0}
    tables = spec.configuration("ralr", point).model_dump(exclude_none=True, exclude={"task"})
    again = started(tomllib.loads(tomli_w.dumps(tables)), arms={"monotone": {}, "ralr": {"amplify": UPPER}})
    assert start_recipe(again, "ralr", 0) == point


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        (
            {"amplify": {"lower": 1.0, "upper": 9.0}},
            "search.start[0].amplify.upper = 9.0: outside arm ralr's space: amplify.width is 0.0 to 4.0",
        ),
        ({"amplify.upper": 3.0}, "search.start[0].amplify.upper = 3.0: needs amplify.lower in the same recipe"),
        (
            {"training": {"lr": 0.1, "epochs": 9}},
            "search.start[0].training.epochs = 9: this study does not search it, and trains with 4",
        ),
        (
            {"task": {"data": {"optimum": 0.5}}},
            "search.start[0].task.data.optimum = 0.5: this study does not search it, and trains with 0.1",
        ),
        ({"training": {"lrr": 0.1}}, "search.start[0].training.lrr = 0.1: no such parameter; did you mean"),
        ({"amplify": {"width": 9.0}}, "search.start[0].amplify.width = 9.0: outside arm ralr's space: 0.0 to 4.0"),
        ({"noise": {"std": 1.0}}, "search.start[0].noise.std = 1.0: not searched in any arm; allowed: "),
        ({"amplify": 3}, "search.start[0].amplify = 3: no such parameter; "),
    ],
)
def test_errors_name_the_key_as_the_recipe_writes_it(recipe: dict[str, Any], line: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        started(recipe)
    assert caught.value.problems[0].startswith(f"x.toml: {line}")


def test_recipe_values_have_the_key_of_the_file_and_the_name_of_the_parameter() -> None:
    assert list(recipe_values({"lr": 1, "training": {"options": {"momentum": 2}}, "provenance": {"a": 3}})) == [
        RecipeValue("lr", "lr", 1, False),
        RecipeValue("training.options.momentum", "momentum", 2, True),
    ]


def test_a_study_with_a_recipe_by_name_keeps_its_fingerprint() -> None:
    """The fingerprint is that of releases in which recipes could not be tables."""
    assert started({"lr": 0.1}).fingerprint == "c826c0d93691ebef958525b120d4e103234d7b7e075b7580407f3158405b1b44"
