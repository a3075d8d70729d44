"""Texts as a terminal may show them: their words may come from a database, a log or somebody's own code."""

from __future__ import annotations

from ralr_tune.secrecy import hidden
from ralr_tune.studyfile.problems import one_line


def readable(text: str) -> str:
    """The lines of a text, secrets hidden, and everything escaped that a terminal would obey instead of showing it."""
    return "\n".join(one_line(line) for line in hidden(text).splitlines())
