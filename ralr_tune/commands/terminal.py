"""Text made safe for a terminal: it may come from a database, a log or a user's code."""

from __future__ import annotations

from ralr_tune.secrecy import hidden
from ralr_tune.studyfile.problems import one_line


def readable(text: str) -> str:
    """Mask secrets in a text, and escape characters that control the terminal."""
    return "\n".join(one_line(line) for line in hidden(text).splitlines())
