"""Values and calls as Python source, formatted like ruff."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

from ralr_tune.errors import UsageError

OTHER_FORMATS = "export it as toml, json or yaml"

WIDTH = 120


def literal(value: Any) -> str:
    """`value` as Python source. All values of a study enter a script through it, so that no string becomes code.

    Raises UsageError for a value without a Python literal (a NaN, a date).
    """
    text = _source_of(value)
    try:
        same = bool(ast.literal_eval(text) == value)
    except (ValueError, SyntaxError):
        same = False
    if not same:
        raise UsageError(f"{text}: cannot be written as a Python literal; {OTHER_FORMATS}")
    return text


def _source_of(value: Any) -> str:
    """Like `repr`, but with strings in double quotes."""
    if isinstance(value, str):
        text = repr(value)
        return text if '"' in value or text.startswith('"') else f'"{text[1:-1]}"'
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_source_of(key)}: {_source_of(each)}' for key, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_source_of, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_source_of, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def arguments(options: Mapping[str, Any]) -> list[str]:
    """`options` as keyword arguments of a call: ["momentum=0.9", "nesterov=True"]."""
    if all(is_identifier(key) for key in options):
        return [f"{key}={literal(value)}" for key, value in options.items()]
    return [f"**{literal(dict(options))}"]


def is_identifier(text: str) -> bool:
    """Whether `text` is exactly one Python name."""
    return text.isidentifier() and text.isascii() and not iskeyword(text)


def wrapped(expression: str, *, indent: int = 0, used: int = 0) -> str:
    """A one-line expression, split into one argument or item per line if it is too long.

    `indent`: indentation of its first line, in columns; `used`: columns of that line used by the surrounding code.
    """
    return _wrapped(ast.parse(expression, mode="eval").body, expression.encode(), indent, used)


def _wrapped(node: ast.expr, source: bytes, indent: int, used: int) -> str:
    text = source[node.col_offset : node.end_col_offset].decode()
    children = _children(node)
    if indent + used + len(text) <= WIDTH or not children:
        return text
    lines = [source[node.col_offset : children[0][0]].decode()]
    for begin, child in children:
        label = source[begin : child.col_offset].decode()
        value = _wrapped(child, source, indent + 4, len(label) + 1)  # 1: the comma
        lines.append(f"{' ' * (indent + 4)}{label}{value},")
    return "\n".join([*lines, " " * indent + text[-1]])


def _children(node: ast.expr) -> list[tuple[int, ast.expr]]:
    """Arguments of a call, items of a list or tuple, values of a dict, each with the column where its label starts."""
    if isinstance(node, ast.Call):
        named = [(each.col_offset, each.value) for each in node.keywords]
        return [*((each.col_offset, each) for each in node.args), *named]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return [(key.col_offset, value) for key, value in pairs if key is not None]
    return [(each.col_offset, each) for each in getattr(node, "elts", [])]
