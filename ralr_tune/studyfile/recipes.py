"""The user's recipes (`search.start`): parameters by name, or the tables of an exported configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ralr_tune.studyfile.configuration import TASK, task_parameter
from ralr_tune.studyfile.parameters import OF_OPTIMIZERS, own_name
from ralr_tune.studyfile.values import Choice, encode

if TYPE_CHECKING:
    from ralr_tune.studyfile.study import StudySpec

_WIDTH, _UPPER = "amplify.width", "amplify.upper"
UPPER_ENDS = frozenset({_WIDTH, _UPPER})
"""Both forms of the upper end of amplification."""
_DIGITS = 12
"""Digits of a converted value: 2.3 - 1.1 is 1.2."""
_TABLES = ("training", "schedule", "amplify", "noise", "task")


class RecipeValue(NamedTuple):
    """One value of a recipe."""

    key: str
    """The key path in the recipe, as the file writes it."""
    name: str
    """The parameter's name."""
    value: Any
    in_table: bool
    """Whether it is in a table, as in an export, which also holds values that the study does not search."""


def recipe_values(recipe: Mapping[str, Any]) -> Iterator[RecipeValue]:
    """All values of a recipe, without the [provenance] of an exported configuration."""
    for key, value in recipe.items():
        if key in _TABLES and isinstance(value, dict):
            yield from _table_values(key, key, value)
        elif key != "provenance":
            yield RecipeValue(key, key, value, in_table=False)


def values_for(spec: StudySpec, arm: str, recipe: Mapping[str, Any]) -> list[RecipeValue]:
    """All values of a recipe under the names that they have in an arm.

    A key that the arm gives for the recipe's optimizer alone has its longer name (`optimizers.adamw.lr`). The upper end
    of amplification is as the arm gives it: as `width`, or as `upper` itself.

    An export has `width`. The end stays as it is if the arm does not amplify, or if neither recipe nor arm fix `lower`.
    """
    values, amplify = _of_optimizer(spec, arm, list(recipe_values(recipe))), spec.arms[arm].amplify
    if amplify is None:
        return values
    lower: Any = next((each.value for each in values if each.name == "amplify.lower"), amplify.lower)
    given, wanted, sign = (_UPPER, _WIDTH, -1) if amplify.upper is None else (_WIDTH, _UPPER, 1)
    if not _is_number(lower):
        return values
    return [
        each._replace(name=wanted, value=round(each.value + sign * lower, _DIGITS))
        if each.name == given and _is_number(each.value)
        else each
        for each in values
    ]


def fitting(spec: StudySpec, arm: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe that an arm searches and may have, by name, as Optuna stores them.

    Empty if the recipe's optimizer is none of the arm's: its rates are of another scale.
    """
    space = spec.space(arm)
    if str(recipe.get("optimizer", spec.optimizers(arm)[0])) not in spec.optimizers(arm):
        return {}
    values = values_for(spec, arm, recipe)
    return {
        each.name: encode(each.value) for each in values if each.name in space and space[each.name].contains(each.value)
    }


def _of_optimizer(spec: StudySpec, arm: str, values: list[RecipeValue]) -> list[RecipeValue]:
    names = spec.optimizers(arm)
    optimizer = str(next((each.value for each in values if each.name == "optimizer"), names[0]))
    longer = {}
    for name in spec.parameters:
        own = own_name(name, optimizer) if name.startswith(OF_OPTIMIZERS) else None
        if own is not None and name in spec.used_names(arm, optimizer):
            longer[own] = name
    return [each._replace(name=longer.get(each.name, each.name)) for each in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _table_values(path: str, name: str, table: Mapping[str, Any]) -> Iterator[RecipeValue]:
    """The values of a table; parameter names leave out `options` of [training.options] and [schedule.options]."""
    for key, value in table.items():
        inner = name if key == "options" and name in ("training", "schedule") else f"{name}.{key}"
        if isinstance(value, dict) and (inner == name or name.startswith("task")):
            yield from _table_values(f"{path}.{key}", inner, value)
        else:
            in_task = inner.removeprefix(TASK)
            parameter = inner.removeprefix("training.") if in_task == inner else task_parameter(in_task)
            yield RecipeValue(f"{path}.{key}", parameter, value, in_table=True)


def fixed_values(spec: StudySpec, arm: str) -> dict[str, Any]:
    """The values in an export of an arm that the arm does not search, by name."""
    space = spec.space(arm)
    any_point = {
        name: encode(domain.choices[0]) if isinstance(domain, Choice) else domain.low for name, domain in space.items()
    }
    tables = spec.configuration(arm, any_point).model_dump(exclude={"task"}, exclude_none=True)
    tables["task"] = spec.task.model_dump()
    amplify = spec.arms[arm].amplify
    if amplify is not None and amplify.upper is not None:
        tables["amplify"]["upper"] = tables["amplify"].pop("width") + tables["amplify"]["lower"]
    return {each.name: each.value for each in recipe_values(tables) if each.name not in space}


def is_same(one: Any, other: Any) -> bool:
    """Whether two values would be equal in a file, which has lists instead of tuples."""
    plain = [json.loads(json.dumps(value, default=str)) for value in (one, other)]
    return bool(plain[0] == plain[1])
