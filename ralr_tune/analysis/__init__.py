"""Facts from records: comparisons, importance, and the answer. Pure: no SQL, no torch, no drawing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Bound here and now: the module of the same name would take its place as soon as it is imported.
from ralr_tune.analysis.importance import importance as importance

if TYPE_CHECKING:
    from ralr_tune.analysis.foreign import compare as compare

_HOMES = {"compare": "ralr_tune.analysis.foreign"}
"""For people with an Optuna study of their own; imported when first used."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
