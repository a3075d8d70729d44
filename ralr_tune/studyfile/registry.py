"""Kinds of task by name: built-in kinds, kinds of installed distributions, and `package.module:NAME`.

An installed distribution registers a kind as an entry point of the group `ralr_tune.kinds`, under the name that a study
file gives as `task.kind`. A kind is imported on first use: a study of one kind does not import the modules of another.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib import metadata

from ralr_tune.errors import UsageError
from ralr_tune.studyfile.kind import Kind

GROUP = "ralr_tune.kinds"
BUILT_IN = {
    "classification": "ralr_tune.kinds.classification.kind:KIND",
    "command": "ralr_tune.kinds.command.kind:KIND",
    "detection": "ralr_tune.kinds.detection.kind:KIND",
    "function": "ralr_tune.kinds.function.kind:KIND",
    "simulated": "ralr_tune.kinds.simulated.kind:KIND",
    "translation": "ralr_tune.kinds.translation.kind:KIND",
}
"""Import paths in the format of entry points."""


def names() -> list[str]:
    """Names of the installed kinds."""
    return sorted({*BUILT_IN, *_entry_points()})


def is_import_path(name: str) -> bool:
    """Whether the name of a kind is an import path `package.module:NAME`."""
    return ":" in name


@cache
def find(name: str) -> Kind:
    """The kind of this name.

    Raises KeyError for an unknown name, UsageError if its code cannot be imported or is not a kind.
    """
    path = name if is_import_path(name) else BUILT_IN.get(name) or _entry_points()[name]
    module, _, attribute = path.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # third-party code may raise anything
        raise UsageError(
            f"task.kind = {name!r}: cannot be imported from {path}: {type(error).__name__}: {error}"
        ) from error
    kind: object = found() if isinstance(found, type) else found
    if not isinstance(kind, Kind):
        raise UsageError(f"task.kind = {name!r}: {path} is a {type(kind).__name__}; must be a ralr_tune Kind")
    return kind


@cache
def _entry_points() -> dict[str, str]:
    """Import paths by name. Built-in kinds cannot be replaced: their names mean the same on every machine."""
    return {point.name: point.value for point in metadata.entry_points(group=GROUP) if point.name not in BUILT_IN}
