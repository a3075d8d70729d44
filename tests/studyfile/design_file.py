"""The study file of the design, as it is or with a few words changed, and what is wrong with a text."""

from __future__ import annotations

from pathlib import Path

from ralr_tune.errors import StudyFileError
from ralr_tune.studyfile import StudySpec, parse_study


class Text(str):
    """A study file's text."""

    __slots__ = ()

    def but(self, old: str, new: str) -> Text:
        """The text with its first `old` replaced, which must be there."""
        assert old in self, f"{old!r} does not stand in the study file"
        return Text(self.replace(old, new, 1))

    def study(self) -> StudySpec:
        return parse_study(self)


DESIGN = Text((Path(__file__).parent / "design.toml").read_text(encoding="utf-8"))
"""Word for word."""


def complaints(text: str) -> list[str]:
    """What is wrong, line by line and without the file's name; nothing where the text is a study."""
    try:
        parse_study(text, source="x.toml")
    except StudyFileError as error:
        problems = error.problems
    else:
        problems = ()
    assert all(line.startswith("x.toml: ") for line in problems)
    return [line.removeprefix("x.toml: ") for line in problems]
