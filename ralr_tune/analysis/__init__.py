"""Facts from records: comparisons, importance, and the answer. Pure: no SQL, no torch, no drawing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Bound eagerly: importing the submodule of the same name would otherwise replace the function.
from ralr_tune.analysis.importance import importance as importance

if TYPE_CHECKING:
    from ralr_tune.analysis.foreign import compare as compare

_HOMES = {"compare": "ralr_tune.analysis.foreign"}
"""For users who bring their own Optuna studies; imported on first use."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
