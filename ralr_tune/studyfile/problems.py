"""Turns pydantic's errors into readable lines: `file: key.path: value: what is allowed`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from itertools import takewhile
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from ralr_tune.studyfile.values import FORMS, one_of

KeyPath: TypeAlias = tuple[str, ...]
"""Keys from the top level down: ("training", "lr")."""

_MESSAGES = {
    "missing": "is missing",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "string_type": "must be a string in quotes",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dict_type": "must be a table",
    "too_short": "must have {min_length} or more items",
    "too_long": "must have at most {max_length} items",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "finite_number": "must be a finite number",
}
_MAX_SHOWN = 80
"""Maximum length of a value or key in a message, in characters."""

_BY_RUN = "split"
"""A table that `run` writes, so that it is no suggestion."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

MAX_DEPTH = 32
"""Maximum nesting of tables and lists; no key needs more than six levels."""

MAX_VALUES = 10_000
"""Maximum number of values in a file, including tables and lists; a real file has about a hundred."""

_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_\\-])(?:{_PART}[ \t]*+\.[ \t]*+){{{MAX_DEPTH}}}")
"""A dotted key with too many parts. Possessive quantifiers prevent backtracking, so that matching takes linear time."""


def lines(error: ValidationError, model: type[BaseModel], raw: Mapping[str, Any]) -> list[str]:
    """One line per error, in the order of the file, without duplicates."""
    found = (_line(entry, model, raw) for entry in error.errors(include_url=False))
    return list(dict.fromkeys(found))


def long_key(text: str) -> str | None:
    """An error line if the text has a dotted key that is too long: tomllib takes quadratic time in its parts."""
    found = _LONG_KEY.search(text)
    if found is None:
        return None
    line = text.count("\n", 0, found.start()) + 1
    return f"line {line}: {shown(found[0])}: a dotted key has at most {MAX_DEPTH} parts"


def unreadable(raw: Mapping[str, Any]) -> list[str]:
    """Errors for what tomllib accepts but this package does not: integers beyond 64 bits, too large or deep tables."""
    found = []
    seen = 0
    waiting: list[tuple[list[str | int], Any]] = [([], raw)]  # no recursion: tables may be nested arbitrarily deep
    while waiting:
        path, value = waiting.pop()
        seen += 1
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            found.append(f"{dotted(path)}: a whole number has at most 64 bits")
        elif isinstance(value, dict | list) and len(path) >= MAX_DEPTH:
            found.append(f"{dotted(path)}: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(value, dict | list):
            if seen + len(waiting) + len(value) > MAX_VALUES:
                return [f"{dotted(path)}: too many values: a file has at most {MAX_VALUES}"]
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [([*path, key], each) for key, each in inside]
    return found[::-1]


def faults(error: ValidationError, raw: Mapping[str, Any], substitutes: Mapping[KeyPath, Any]) -> set[KeyPath]:
    """The keys that `error` names. For a missing key without a substitute: its table."""
    found: set[KeyPath] = set()
    for entry in error.errors(include_url=False):
        path = tuple(map(str, takewhile(_is_key, _key_path(entry["loc"], raw))))
        found.add(path[:-1] if entry["type"] == "missing" and path not in substitutes else path)
    return found


def without_faults(wrong: set[KeyPath], raw: Mapping[str, Any], substitutes: Mapping[KeyPath, Any]) -> dict[str, Any]:
    """A copy of `raw` without the `wrong` keys; required ones are replaced by their substitutes."""
    copy = deepcopy(dict(raw))
    for path in sorted(wrong, key=len, reverse=True):
        table = _at(copy, path[:-1])
        if path and isinstance(table, dict):
            table.pop(path[-1], None)
            if path in substitutes:
                table[path[-1]] = deepcopy(substitutes[path])
    return copy


def _line(entry: Any, model: type[BaseModel], raw: Mapping[str, Any]) -> str:
    path = _key_path(entry["loc"], raw)
    kind, message = entry["type"], entry["msg"]
    if kind == "missing":
        return f"{dotted(path)} is missing"
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _tag_line([*path, entry["ctx"]["discriminator"].strip("'")], model, raw)
    if kind == "extra_forbidden":
        return f"{dotted(path)} = {shown(entry['input'])}: unknown key{_nearest(path, model, raw)}"
    words = _MESSAGES.get(kind, message.replace("Input should", "should").replace("{", "{{").replace("}", "}}"))
    limits = {key: f"{value:g}" if isinstance(value, float) else value for key, value in entry.get("ctx", {}).items()}
    text = message if kind == "ralr_tune" else words.format(**limits)
    return f"{dotted(path)} = {shown(_at(raw, path))}: {text}"


def _tag_line(path: Sequence[str | int], model: type[BaseModel], raw: Mapping[str, Any]) -> str:
    """The line for a discriminator key (`kind`, `source`) that is missing or has an unknown value."""
    allowed = list(_node(model, path[:-1], raw)["discriminator"]["mapping"])
    given = _at(raw, path)
    if given is None:
        return f"{dotted(path)} is missing; allowed: {', '.join(allowed)}"
    return f"{dotted(path)} = {shown(given)}: {one_of(allowed, str(given))}"


def _is_key(part: str | int) -> bool:
    return isinstance(part, str)


def _key_path(location: Sequence[str | int], raw: Any) -> list[str | int]:
    """The location without pydantic's additions (form tags, `[key]`), found by walking the file in parallel."""
    path: list[str | int] = []
    here = raw
    for part in location:
        if isinstance(here, dict) and part in here:
            here = here[part]
        elif isinstance(here, list) and isinstance(part, int):
            here = here[part] if part < len(here) else None
        elif part in FORMS or part == "[key]" or not isinstance(here, dict) or _is_tag(part, here):
            continue
        else:
            here = {}
        path.append(part)
    return path


def _is_tag(part: str | int, here: Mapping[str, Any]) -> bool:
    return part in (here.get("kind"), here.get("source"))


def _at(raw: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _nearest(path: Sequence[str | int], model: type[BaseModel], raw: Mapping[str, Any]) -> str:
    """Suggests a key of the table, preferring keys that are not used yet: `lgo` next to `low` means `log`."""
    known = sorted(set(_known_keys(model, path[:-1], raw)) - ({_BY_RUN} if len(path) == 1 else set()))
    free = [key for key in known if key not in _at(raw, path[:-1])]
    return f"; {one_of(free or known, str(path[-1]))}" if known else ""


def _known_keys(model: type[BaseModel], path: Sequence[str | int], raw: Mapping[str, Any]) -> list[str]:
    """Keys that the table at `path` may have, from the JSON schema."""
    node = _resolve(_node(model, path, raw), _schema(model), _at(raw, path))
    return list(node.get("properties", {}))


def _node(model: type[BaseModel], path: Sequence[str | int], raw: Mapping[str, Any]) -> Any:
    """The JSON schema of the value at `path`."""
    node: Any = _schema(model)
    for depth, part in enumerate(path):
        node = _child(_resolve(node, _schema(model), _at(raw, path[:depth])), part)
    return node


@cache
def _schema(model: type[BaseModel]) -> Mapping[str, Any]:
    return model.model_json_schema()


def _child(node: Mapping[str, Any], part: str | int) -> Any:
    if isinstance(part, int):
        return node.get("items", {})
    return node.get("properties", {}).get(part, node.get("additionalProperties", {}))


def _resolve(node: Any, schema: Mapping[str, Any], here: Any) -> Mapping[str, Any]:
    """Resolves references and unions to the object schema that fits the table `here` best."""
    if not isinstance(node, dict):
        return {}
    if "$ref" in node:
        return _resolve(schema["$defs"][node["$ref"].rsplit("/", 1)[1]], schema, here)
    branches = [_resolve(branch, schema, here) for branch in node.get("anyOf") or node.get("oneOf") or ()]
    tables = [branch for branch in branches if "properties" in branch]
    if not tables:
        return node
    return max(tables, key=lambda table: _fit(table["properties"], here))


def _fit(known: Mapping[str, Any], here: Any) -> tuple[bool, int]:
    """How well `here` fits a table with these keys: `choices` means a choice; constants (kind, source) must match."""
    if not isinstance(here, dict) or any(
        here[key] != known[key].get("const", here[key]) for key in known.keys() & here
    ):
        return False, 0
    return "choices" in known.keys() & here, len(known.keys() & here)


def dotted(path: Sequence[str | int]) -> str:
    """`["search", "start", 0, "lr"]` as `search.start[0].lr`; keys in quotes if TOML requires them."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_key(part)}"
    return text.removeprefix(".") or "the file"


def _key(key: str) -> str:
    key = cut(key, _MAX_SHOWN)
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def shown(value: Any) -> str:
    """A value formatted for a message, shortened if necessary."""
    return cut(json.dumps(value, default=str, ensure_ascii=False), _MAX_SHOWN)


def cut(text: str, length: int) -> str:
    """The text, truncated to `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def one_line(text: str) -> str:
    """The text with all unprintable characters escaped: keys may contain any character."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
