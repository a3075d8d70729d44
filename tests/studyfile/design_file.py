"""The study file of the design, unchanged or with a few words replaced, and the problems of a text."""

from __future__ import annotations

from pathlib import Path

from ralr_tune.errors import StudyFileError
from ralr_tune.studyfile import StudySpec, parse_study


class Text(str):
    """A study file's text."""

    __slots__ = ()

    def but(self, old: str, new: str) -> Text:
        """The text with its first `old` replaced, which must occur."""
        assert old in self, f"{old!r} does not stand in the study file"
        return Text(self.replace(old, new, 1))

    def study(self) -> StudySpec:
        return parse_study(self)


DESIGN = Text((Path(__file__).parent / "design.toml").read_text(encoding="utf-8"))
"""Word for word."""


def complaints(text: str) -> list[str]:
    """The problems, one per line and without the file name; empty if the text is a valid study."""
    try:
        parse_study(text, source="x.toml")
    except StudyFileError as error:
        problems = error.problems
    else:
        problems = ()
    assert all(line.startswith("x.toml: ") for line in problems)
    return [line.removeprefix("x.toml: ") for line in problems]
