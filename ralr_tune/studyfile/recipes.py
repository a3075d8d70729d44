"""The user's own recipes (`search.start`): by parameter name, or as the tables of an exported configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ralr_tune.studyfile.values import Choice, encode

if TYPE_CHECKING:
    from ralr_tune.studyfile.study import StudySpec

_TABLES = ("training", "schedule", "amplify", "noise", "task")


class Given(NamedTuple):
    """One value of a recipe."""

    key: str
    """As the file has it."""
    name: str
    """Of the parameter."""
    value: Any
    tabled: bool
    """Whether it stands in a table, as an export has it: among values that the study does not search."""


def given(recipe: Mapping[str, Any]) -> Iterator[Given]:
    """All values of a recipe; [provenance] of an exported configuration is none."""
    for key, value in recipe.items():
        if key in _TABLES and isinstance(value, dict):
            yield from _tabled(key, key, value)
        elif key != "provenance":
            yield Given(key, key, value, tabled=False)


def _tabled(path: str, name: str, table: Mapping[str, Any]) -> Iterator[Given]:
    """Values of a table; what an export has in [training.options] and [schedule.options] has no table of its own."""
    for key, value in table.items():
        inner = name if key == "options" and name in ("training", "schedule") else f"{name}.{key}"
        if isinstance(value, dict) and (inner == name or name.startswith("task")):
            yield from _tabled(f"{path}.{key}", inner, value)
        else:
            yield Given(f"{path}.{key}", inner.removeprefix("training."), value, tabled=True)


def fixed(spec: StudySpec, arm: str) -> dict[str, Any]:
    """What an arm does not search, by name: everything that an export of it holds."""
    space = spec.space(arm)
    somewhere = {
        name: encode(domain.choices[0]) if isinstance(domain, Choice) else domain.low for name, domain in space.items()
    }
    tables = spec.configuration(arm, somewhere).model_dump(exclude={"task"}, exclude_none=True)
    tables["task"] = spec.task.model_dump()
    return {each.name: each.value for each in given(tables) if each.name not in space}


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same in a file, in which a list stands for a tuple."""
    plain = [json.loads(json.dumps(value, default=str)) for value in (one, other)]
    return bool(plain[0] == plain[1])
