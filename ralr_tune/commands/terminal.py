"""Text made safe for a terminal: it may come from a database, a log or a user's code."""

from __future__ import annotations

import codecs
import textwrap

from ralr_tune.invocation import program
from ralr_tune.secrecy import hidden
from ralr_tune.studyfile.problems import one_line

PLAIN = "ralr_tune.plain"
"""An error handler for streams: plain characters in place of those that an encoding lacks, escapes for all others."""

_PLAIN = str.maketrans(
    {"±": "+/-", "…": "...", "←": "<-", "→": "->", "×": "x"}
    | dict.fromkeys("\N{MINUS SIGN}–—─━", "-")
    | dict.fromkeys("│┃", "|")
    | {"├": "[", "┤": "]", "┼": "+", "╪": "+", "●": "o", "═": "=", "░": ":", "·": ".", "‹": "<", "›": ">"}
    | dict(zip("▁▂▃▄▅▆▇█", "_.-:=+*#", strict=True))
)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return lacking.translate(_PLAIN).encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(PLAIN, _replaced)


def readable(text: str) -> str:
    """Mask secrets in a text, and escape characters that control the terminal."""
    return "\n".join(one_line(line) for line in hidden(text).splitlines())


def wrapped(text: str, width: int | None) -> str:
    """Lines broken between words at `width` columns (None: unlimited), further lines indented as their first one.

    A line with a command stays whole, so that it can be copied.
    """
    if width is None:
        return text
    return "\n".join(line if program() in line else _fill(line, width) for line in text.splitlines())


def _fill(line: str, width: int) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
