"""What a study file or an exported configuration has imported: code that is not ours, and that runs.

Everything else in them is data. `task.kind` may name a kind of task, and a kind may let further keys name code: the
network of image classification is one.
"""

from __future__ import annotations

import json
import keyword
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ralr_tune.errors import UsageError
from ralr_tune.studyfile.registry import is_import_path

if TYPE_CHECKING:
    from ralr_tune.studyfile.kind import Kind
    from ralr_tune.studyfile.sections import TaskSection

TORCHVISION = "torchvision:"
"""Of the names with a colon, those that begin so are torchvision's own networks."""


@dataclass(frozen=True)
class Import:
    """One key that names code."""

    key: str
    value: str

    @property
    def module(self) -> str:
        return self.value.partition(":")[0]

    def folder(self) -> Path | None:
        """The folder that the module would come from; None where there is none. Imports nothing to find out."""
        try:
            found = find_spec(self.module.partition(".")[0])  # of a top-level name: that imports no parent
        except (ImportError, ValueError):  # ValueError: loaded, and without a spec of its own
            return None
        if found is None:
            return None
        places = [Path(place) for place in found.submodule_search_locations or [found.origin or ""]]
        return places[0].absolute().parent

    def __str__(self) -> str:
        folder = self.folder()
        where = "which is not found here" if folder is None else f"from {folder}"
        return f"{self.key} = {json.dumps(self.value)} runs code that is not ralr_tune's: module {self.module}, {where}"


def imports(kind: Kind, task: TaskSection) -> tuple[Import, ...]:
    """What training this task imports, besides this package, installed kinds and what they depend on."""
    own = (Import("task.kind", task.kind),) if is_import_path(task.kind) else ()
    return (*own, *kind.imports(task))


def refuse_imports(kind: Kind, task: TaskSection) -> None:
    """Raises UsageError if the task would import anything (`--no-imports`)."""
    for found in imports(kind, task):
        raise UsageError(f"{found}; --no-imports forbids that")


def check_model(value: str) -> str:
    """The name of a network, if it can be one. Raises ValueError for what looks like an import path and is none."""
    module, _, path = value.partition(":")
    parts = [*module.split("."), *path.split(".")]
    if names_code(value) and not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise ValueError("no import path package.module:callable")
    return value


def names_code(model: str) -> bool:
    """Whether the name of a network is an import path."""
    return ":" in model and not model.startswith(TORCHVISION)
