"""Third-party code that a study file or an exported configuration imports and therefore runs.

Everything else in these files is data. `task.kind` may name code, and a kind may allow it in other keys, such as the
network of image classification.
"""

from __future__ import annotations

import json
import keyword
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ralr_tune.errors import UsageError
from ralr_tune.studyfile.optimizers import is_imported
from ralr_tune.studyfile.registry import is_import_path

if TYPE_CHECKING:
    from ralr_tune.studyfile.kind import Kind
    from ralr_tune.studyfile.sections import TaskSection
    from ralr_tune.studyfile.study import StudySpec

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


def imports(kind: Kind, task: TaskSection, optimizers: Iterable[str] = ()) -> tuple[Import, ...]:
    """The code that this task and its optimizers import, besides this package, installed kinds and their dependencies.

    `optimizers`: names and import paths (`StudySpec.imported_optimizers`).
    """
    own = (Import("task.kind", task.kind),) if is_import_path(task.kind) else ()
    named = (Import("training.optimizer", name) for name in optimizers if is_imported(name))
    return (*own, *kind.imports(task), *named)


def imports_of(spec: StudySpec) -> tuple[Import, ...]:
    """The code that a study imports."""
    return imports(spec.kind, spec.task, spec.imported_optimizers)


def refuse_imports(found: Iterable[Import]) -> None:
    """Raises UsageError if there is anything to import (`--no-imports`)."""
    for each in found:
        raise UsageError(f"{each}; --no-imports forbids that")


def forget_module(name: str, before: Collection[str]) -> None:
    """Removes the modules of an import path that were imported since `before`: the names in sys.modules then.

    In a notebook, the next import reads the corrected file.
    """
    top = name.partition(":")[0].partition(".")[0]
    for module in [each for each in sys.modules if each.partition(".")[0] == top and each not in before]:
        del sys.modules[module]


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
