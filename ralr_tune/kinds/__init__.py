"""Kinds of task, one folder each, and the public names for writing a new kind (docs/kinds.md has a complete example).

Names are imported on first use, so that a study of one kind does not import the modules of another.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ralr_tune.metric import Metric as Metric
    from ralr_tune.studyfile.kind import Kind as Kind
    from ralr_tune.studyfile.sections import TaskSection as TaskSection
    from ralr_tune.studyfile.values import Choosable as Choosable
    from ralr_tune.studyfile.values import Searchable as Searchable
    from ralr_tune.tasks.base import Capabilities as Capabilities
    from ralr_tune.tasks.tensors import TensorBatch as TensorBatch
    from ralr_tune.training.kind import TorchKind as TorchKind

_HOMES = {
    "Capabilities": "ralr_tune.tasks.base",
    "Choosable": "ralr_tune.studyfile.values",
    "Kind": "ralr_tune.studyfile.kind",
    "Metric": "ralr_tune.metric",
    "Searchable": "ralr_tune.studyfile.values",
    "TaskSection": "ralr_tune.studyfile.sections",
    "TensorBatch": "ralr_tune.tasks.tensors",
    "TorchKind": "ralr_tune.training.kind",
}

__all__ = ["Capabilities", "Choosable", "Kind", "Metric", "Searchable", "TaskSection", "TensorBatch", "TorchKind"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
