"""Third-party code that a study file or an exported configuration imports and therefore runs.

Everything else in these files is data. `task.kind` may name code, and a kind may allow it in other keys, such as the
network of image classification.
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

TORCHVISION, TIMM = "torchvision:", "timm:"
"""Prefixes of the networks of these packages; any other name with a colon is an import path."""


@dataclass(frozen=True)
class Import:
    """One key that names code or a program."""

    key: str
    value: str
    is_program: bool = False
    """Whether it is not a module but a command, which runs in a process of its own."""

    @property
    def module(self) -> str:
        return self.value.partition(":")[0]

    def folder(self) -> Path | None:
        """The folder from which the module would be imported, None if it is not found. Imports nothing."""
        if self.is_program:
            return None
        try:
            found = find_spec(self.module.partition(".")[0])  # only the top-level package: this imports no parent
        except (ImportError, ValueError):  # ValueError: loaded, but without a spec
            return None
        if found is None:
            return None
        places = [Path(place) for place in found.submodule_search_locations or [found.origin or ""]]
        return places[0].absolute().parent

    def __str__(self) -> str:
        if self.is_program:
            return f"{self.key} = {json.dumps(self.value)} runs a program"
        folder = self.folder()
        where = "not found" if folder is None else f"from {folder}"
        return f"{self.key} = {json.dumps(self.value)} runs code outside of ralr_tune: module {self.module}, {where}"


def imports(kind: Kind, task: TaskSection) -> tuple[Import, ...]:
    """The code that this task imports, besides this package, installed kinds and their dependencies."""
    own = (Import("task.kind", task.kind),) if is_import_path(task.kind) else ()
    return (*own, *kind.imports(task))


def refuse_imports(kind: Kind, task: TaskSection) -> None:
    """Raises UsageError if the task would import anything (`--no-imports`)."""
    for found in imports(kind, task):
        raise UsageError(f"{found}; --no-imports forbids that")


def check_model(value: str) -> str:
    """Returns the name of a network unchanged. Raises ValueError if it has a colon but is not an import path."""
    return check_import_path(value) if names_code(value) else value


def check_import_path(value: str) -> str:
    """Returns an import path unchanged. Raises ValueError if it is none."""
    module, _, path = value.partition(":")
    parts = [*module.split("."), *path.split(".")]
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise ValueError("not an import path package.module:callable")
    return value


def names_code(model: str) -> bool:
    """Whether the name of a network is an import path."""
    return ":" in model and not model.startswith((TORCHVISION, TIMM))
