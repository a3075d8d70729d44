"""Kinds of task by name: those that ship, those that installed distributions bring, and `package.module:NAME`.

An installed distribution registers a kind as an entry point of the group `ralr_tune.kinds`; its name is what a study
file gives as `task.kind`. A kind is imported when it is first asked for: a study of one kind brings no other's modules.
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
    "simulated": "ralr_tune.kinds.simulated.kind:KIND",
}
"""Import paths as entry points have them."""


def names() -> list[str]:
    """Names of the kinds that are installed here."""
    return sorted({*BUILT_IN, *_entry_points()})


def is_import_path(name: str) -> bool:
    """Whether the name of a kind is code to import: `package.module:NAME`."""
    return ":" in name


@cache
def find(name: str) -> Kind:
    """The kind of this name.

    Raises KeyError for an unknown name, UsageError if its code cannot be imported or is no kind.
    """
    path = name if is_import_path(name) else BUILT_IN.get(name) or _entry_points()[name]
    module, _, attribute = path.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # code of others: whatever it raises
        raise UsageError(
            f"task.kind = {name!r}: cannot be imported from {path}: {type(error).__name__}: {error}"
        ) from error
    kind: object = found() if isinstance(found, type) else found
    if not isinstance(kind, Kind):
        raise UsageError(f"task.kind = {name!r}: {path} is a {type(kind).__name__}; must be a ralr_tune Kind")
    return kind


@cache
def _entry_points() -> dict[str, str]:
    """Import paths by name. A built-in kind cannot be replaced: its name means the same on every machine."""
    return {point.name: point.value for point in metadata.entry_points(group=GROUP) if point.name not in BUILT_IN}
