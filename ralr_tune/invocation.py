"""Commands in messages: a printed command works if the user types it into the shell that started this program."""

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
    """An environment variable in a command, which the shell expands."""

    name: str


def command(*words: str | Path | Variable) -> str:
    """`ralr-tune WORDS`, or `python -m ralr_tune WORDS` if this program was not started by its entry point."""
    return " ".join([program(), *map(_quoted, words)])


def program() -> str:
    """`ralr-tune` if its entry point was used, otherwise `python -m ralr_tune`, with a path if the shell needs one."""
    started = Path(sys.argv[0]) if sys.argv else Path()
    return _shortest(started, SCRIPT) if started.name == SCRIPT and started.exists() else f"{python()} -m ralr_tune"


def python(*words: str) -> str:
    """This interpreter as a command, with arguments."""
    interpreter = _shortest(Path(sys.executable), "python", "python3") if sys.executable else "python"
    return " ".join([interpreter, *map(_quoted, words)])


def install(extra: str) -> str:
    """The command that installs this package's extra for this interpreter."""
    return python("-m", "pip", "install", f"ralr-tune[{extra}]")


def script(name: str) -> str:
    """Another package's entry point, installed alongside this interpreter."""
    return _shortest(Path(sys.executable).with_name(name), name)


def relative_to_cwd(path: Path) -> Path:
    """The path relative to the current folder if it is inside it, otherwise unchanged."""
    try:
        current = Path.cwd()
    except OSError:  # the current folder was deleted
        return path
    inside = path.is_absolute() and path.is_relative_to(current) and current != current.parent
    return path.relative_to(current) if inside else path


def _shortest(program: Path, *names: str) -> str:
    """The first of the names that the shell resolves to this program; otherwise its path."""
    for name in names:
        found = shutil.which(name)
        if found and program.exists() and _is_same(Path(found), program):
            return name
    path = relative_to_cwd(program)
    return _quoted(path if len(path.parts) > 1 else f"./{path}")


def _is_same(found: Path, program: Path) -> bool:
    """Compares folders, too: `python` may be a link to the same file in two environments."""
    return os.path.samefile(found, program) and os.path.samefile(found.parent, program.parent)


def _quoted(word: str | Path | Variable) -> str:
    if isinstance(word, Variable):
        return f'"${word.name}"'
    if str(word).isprintable():
        return shlex.quote(str(word))
    # for bytes that are not UTF-8 and control characters; bash, zsh and ksh read this
    return "$'" + "".join(f"\\x{byte:02x}" for byte in os.fsencode(word)) + "'"
