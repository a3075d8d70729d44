"""Commands as messages show them: what is printed works when it is typed into the shell that started this program."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

SCRIPT = "ralr-tune"
"""The installed entry point."""


class Variable(NamedTuple):
    """A word of a command that the shell takes from its environment."""

    name: str


def command(*words: str | Path | Variable) -> str:
    """`ralr-tune WORDS` as this program was started: by its entry point, or by the interpreter in use."""
    return " ".join([program(), *map(_quoted, words)])


def program() -> str:
    """`ralr-tune` if its entry point is in use, otherwise `python -m ralr_tune`, both as short as the shell allows."""
    started = Path(sys.argv[0]) if sys.argv else Path()
    return _shortest(started, SCRIPT) if started.name == SCRIPT and started.exists() else f"{python()} -m ralr_tune"


def python(*words: str) -> str:
    """The interpreter in use, with arguments."""
    interpreter = _shortest(Path(sys.executable), "python", "python3") if sys.executable else "python"
    return " ".join([interpreter, *map(_quoted, words)])


def script(name: str) -> str:
    """Another package's entry point, installed with the interpreter in use."""
    return _shortest(Path(sys.executable).with_name(name), name)


def near(path: Path) -> Path:
    """The path, seen from the current folder if it lies in there."""
    try:
        here = Path.cwd()
    except OSError:  # it was deleted
        return path
    inside = path.is_absolute() and path.is_relative_to(here) and here != here.parent
    return path.relative_to(here) if inside else path


def _shortest(program: Path, *names: str) -> str:
    """The first of the names by which the shell finds that program; otherwise its path."""
    for name in names:
        found = shutil.which(name)
        if found and program.exists() and _is_same(Path(found), program):
            return name
    path = near(program)
    return _quoted(path if len(path.parts) > 1 else f"./{path}")


def _is_same(found: Path, program: Path) -> bool:
    """In two environments, `python` may be a link to the same file: its folder tells them apart."""
    return os.path.samefile(found, program) and os.path.samefile(found.parent, program.parent)


def _quoted(word: str | Path | Variable) -> str:
    if isinstance(word, Variable):
        return f'"${word.name}"'
    if str(word).isprintable():
        return shlex.quote(str(word))
    # as bash, zsh and ksh read it: bytes that are not UTF-8, control characters
    return "$'" + "".join(f"\\x{byte:02x}" for byte in os.fsencode(word)) + "'"
