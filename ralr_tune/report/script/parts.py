"""What a script is made of: pieces of source with the imports that they need."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from keyword import iskeyword
from types import ModuleType
from typing import Any

from ralr_tune.errors import UsageError

OTHER_FORMS = "export it as toml, json or yaml"


@dataclass(frozen=True)
class Part:
    """Top-level source of a script."""

    body: str
    imports: frozenset[str] = frozenset()
    """Each one import statement of one name, e.g. "import torch" or "from torch import nn"."""


def literal(value: Any) -> str:
    """`value` as Python source. All that a study says enters a script through here, so that no text of it is code.

    Raises UsageError for what Python cannot write down (a NaN, a date).
    """
    text = repr(value)
    try:
        same = bool(ast.literal_eval(text) == value)
    except (ValueError, SyntaxError):
        same = False
    if not same:
        raise UsageError(f"{text}: cannot be written in a Python script; {OTHER_FORMS}")
    return text


def keywords(options: Mapping[str, Any]) -> str:
    """`options` as the end of a call's arguments: ", momentum=0.9, nesterov=True"."""
    if all(is_name(key) for key in options):
        return "".join(f", {key}={literal(value)}" for key, value in options.items())
    return f", **{literal(dict(options))}"


def is_name(text: str) -> bool:
    """Whether `text` is a name in Python and nothing else."""
    return text.isidentifier() and text.isascii() and not iskeyword(text)


def source_of(*modules: ModuleType) -> Part:
    """Whole modules that together stand alone, their docstrings aside; one that others import comes before them."""
    bodies, statements = [], set()
    for module in modules:
        source = inspect.getsource(module)
        nodes = [node for node in ast.parse(source).body if not _is_docstring(node)]
        imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        first = _first_line(nodes[len(imports)])
        bodies.append("\n".join(source.splitlines()[first - 1 :]) + "\n")
        statements |= set(_statements(imports))
    within = tuple(f"from {module.__name__} import " for module in modules)
    return Part("\n\n".join(bodies), frozenset(each for each in statements if not each.startswith(within)))


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.lineno == 1


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def _statements(imports: Iterable[ast.Import | ast.ImportFrom]) -> Iterable[str]:
    for node in imports:
        for alias in node.names:
            name = ast.unparse(alias)
            yield f"import {name}" if isinstance(node, ast.Import) else f"from {node.module} import {name}"


def import_block(imports: Iterable[str]) -> str:
    """The import statements as one block, as isort orders them; `__future__` goes without saying."""
    modules: dict[str, set[str]] = {}
    whole: set[str] = set()
    for statement in imports:
        words = statement.split(" ", 3)
        if words[0] == "import":
            whole.add(statement)
        elif words[1] != "__future__":
            modules.setdefault(words[1], set()).add(words[3])
    named = [f"from {name} import {_names(modules[name])}" for name in sorted(modules, key=str.lower)]
    lines = [*sorted(whole), *named]
    standard = [line for line in lines if line.split()[1].split(".")[0] in sys.stdlib_module_names]
    others = [line for line in lines if line not in standard]
    return "\n\n".join("\n".join(block) for block in (standard, others) if block) + "\n"


def _names(names: set[str]) -> str:
    """CONSTANTS, Classes, functions."""
    return ", ".join(sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name)))
