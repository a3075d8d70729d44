"""Files made to take very long: each is refused or read quickly, with few and short lines."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ralr_tune.errors import StudyFileError
from ralr_tune.studyfile import parse_study
from ralr_tune.studyfile.exported import parse_exported
from ralr_tune.studyfile.problems import long_key
from tests.fuzz import soon
from tests.studyfile.design_file import DESIGN, Text

SIZE = 100_000
"""Approximate characters. (At most ten times as many are read; the slowest of these then takes 0.6 s.)"""


def listed(piece: str) -> str:
    """A list of as many `piece`s as fit; {} is replaced by the number of the piece."""
    return "[" + ",".join(piece.format(n) for n in range(SIZE // (len(piece) + 3))) + "]"


def lines(line: str) -> str:
    return "".join(line.format(n) + "\n" for n in range(SIZE // (len(line) + 3)))


REFUSED: dict[str, str] = {
    "dotted key": ".".join("a" * (SIZE // 2)) + " = 1",
    "dotted keys": lines("a{}" + ".a" * 40 + " = 1"),
    "dotted header": "[" + ".".join("a" * (SIZE // 2)) + "]",
    "quoted parts": ".".join(['"a b"'] * (SIZE // 6)) + " = 1",
    "lists in lists": "x = " + "[" * (SIZE // 2) + "]" * (SIZE // 2),
    "tables in tables": "x = " + "{a=" * (SIZE // 4) + "1" + "}" * (SIZE // 4),
    "unknown keys": lines("k{} = 1"),
    "unknown keys in a table": DESIGN.but("[training]", "[training]\n" + lines("k{} = 1")),
    "a long key": DESIGN.but("[training]", "[training]\n" + "a" * SIZE + " = 1"),
    "a long value": DESIGN.but('"sgd"', f'"{"s" * SIZE}"'),
    "a long kind": DESIGN.but('"classification"', f'"{"s" * SIZE}"'),
    "a long name": DESIGN.but('name = "digits"', f'name = "{"s" * SIZE}"'),
    "a long whole number": DESIGN.but("epochs = 12", "epochs = " + "9" * SIZE),
    "a whole number beyond 64 bits": DESIGN.but("epochs = 12", "epochs = " + "9" * 4000),
    "a hexadecimal one": DESIGN.but("epochs = 12", "epochs = 0x" + "f" * SIZE),
    "a long float": DESIGN.but("validation = 0.2", "validation = 1e" + "9" * SIZE),
    "choices": DESIGN.but("momentum = 0.9", f"momentum = {{ choices = {listed('0.{}')} }}"),
    "wrong choices": DESIGN.but("momentum = 0.9", f"momentum = {{ choices = {listed(chr(34) + chr(34))} }}"),
    "milestones": DESIGN.but("[0.5, 0.75]", listed("0.5")),
    "recipes": DESIGN.but("[{ lr = 0.1 }]", listed("{{x=0.1}}")),
    "classes": DESIGN.but('"digits" }', f'"digits", classes = {listed("{}")} }}'),
    "wrong classes": DESIGN.but('"digits" }', f'"digits", classes = {listed("0.1")} }}'),
    "a long augmentation": DESIGN.but('["crop"]', '["' + "ä" * (SIZE // 2) + '"]'),
    "augmentations": DESIGN.but('["crop"]', listed('"crop"')),
    "options": DESIGN.but("blocks = 1", "blocks = 1\nsampler_options = {" + listed("k{}=1")[1:-1] + "}"),
    "options that are dates": DESIGN.but("blocks = 1", "pruner_options = {" + listed("k{}=2020-01-01")[1:9000] + "}"),
    "arms": DESIGN + "\n" + lines("[arms.a{}]"),
    "arrays of tables": "[[a]]\n" * (SIZE // 6),
    "NULs": DESIGN + "\0" * SIZE,
    "carriage returns": DESIGN.replace("\n", "\r"),
    "quotes": DESIGN + 'x = "' + '"' * SIZE,
    "backslashes": DESIGN + 'x = "' + "\\\\" * (SIZE // 2) + '"',
    "an open string": DESIGN + 'x = "' + '\\"' * (SIZE // 2),
    "lines in a text": DESIGN + 'x = """' + "a\n" * (SIZE // 2) + '"""',
    "a byte order mark too many": "\ufeff" + DESIGN,
    "control characters": DESIGN.but('name = "digits"', 'name = "\\u001b]0;owned\\u0007\\u202e\\u2028"'),
}  # fmt: skip

TAKEN: dict[str, str] = {
    "a hundred arms": DESIGN + "\n" + "".join(f"[arms.a{n}]\n" for n in range(98)),
    "comment": DESIGN + "#" * SIZE,
    "dots in a comment": DESIGN + "# " + "." * SIZE,
    "Windows' line ends": DESIGN.replace("\n", "\r\n"),
    "blanks": DESIGN.but("momentum = 0.9", "momentum" + " " * SIZE + "= 0.9"),
    "a long class": DESIGN.but('"digits" }', '"digits", classes = ["a", "' + "ä" * (SIZE // 2) + '"] }'),
}


def problems(text: str, parse: Callable[[str], object]) -> tuple[str, ...]:
    with soon():
        try:
            parse(text)
        except StudyFileError as error:
            return error.problems
    return ()


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("parse", [parse_study, parse_exported])
def test_refusals_are_short(text: str, parse: Callable[[str], object]) -> None:
    reported = problems(text, parse)
    assert 1 <= len(reported) <= 101
    assert all(line.isprintable() and len(line) < 2500 for line in reported)


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN)
def test_unusual_valid_files_are_accepted(text: str) -> None:
    assert problems(text, parse_study) == ()


@pytest.mark.parametrize(
    "piece",
    [
        "a.",
        "a.a ",
        "'",
        '"',
        '"\\"',
        '"a".',
        "'a\".",
        "a.'",
        '\\".',
        '"a.b',
        " . ",
        "a . ",
        '""."',
        "a." * 31 + "= ",
        "\\",
    ],
)
def test_the_search_for_long_keys_takes_linear_time(piece: str) -> None:
    with soon():
        long_key(Text(piece * (10 * SIZE // len(piece))))
