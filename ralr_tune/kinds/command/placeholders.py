"""Placeholders in the words of a command: `{lr}` is the value, `{nesterov:flag}` is `--nesterov` if it is true."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
FLAG = ":flag"


class Placeholder(NamedTuple):
    """One placeholder of a word."""

    name: str
    is_flag: bool
    is_whole: bool
    """Whether the word is nothing else."""


class Malformed(ValueError):
    """A word with a brace that belongs to no placeholder."""


def placeholders(word: str) -> Iterator[Placeholder]:
    """The placeholders of a word. `{{` and `}}` are braces. Raises Malformed."""
    for found in _TOKEN.finditer(word):
        if found[0] in ("{{", "}}"):
            continue
        if found[1] is None:
            raise Malformed(f"{found[0]} belongs to no placeholder; write {found[0] * 2} for a brace")
        name = found[1]
        yield Placeholder(name.removesuffix(FLAG), name.endswith(FLAG), found[0] == word)


def filled(words: Iterable[str], values: Mapping[str, Any], *, quoted: bool = False) -> list[str]:
    """The words with values in place of placeholders; a flag that is false leaves out its word.

    `quoted`: values are quoted for a shell. Raises KeyError for an unknown placeholder.
    """
    return [text for word in words if (text := _filled(word, values, quoted)) is not None]


def _filled(word: str, values: Mapping[str, Any], quoted: bool) -> str | None:
    for found in placeholders(word):
        if found.is_flag:
            return f"--{found.name}" if values[found.name] else None

    def value(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][0]
        text = written(values[found[1]])
        return shlex.quote(text) if quoted else text

    return _TOKEN.sub(value, word)


def written(value: Any) -> str:
    """A value as an argument: texts as they are, everything else as in JSON; nothing for None."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def command_line(words: Sequence[str], values: Mapping[str, Any], *, in_shell: bool) -> list[str]:
    """The program and its arguments; `in_shell`: as its owner asked, values quoted."""
    if not in_shell:
        return filled(words, values)
    return ["/bin/sh", "-c", " ".join(filled(words, values, quoted=True))]
