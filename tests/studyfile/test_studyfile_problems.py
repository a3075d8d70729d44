"""Error lines: each names key path, value and what is allowed or the nearest known key; all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ralr_tune.studyfile.problems import dotted, long_key, one_line, shown, unreadable
from tests.studyfile.design_file import DESIGN, complaints


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("seed = 0", "sed = 0", "study.sed = 0: unknown key; did you mean 'seed'?"),
        ("[search]", "[serch]", "serch = {"),
        ("validation = 0.2", "validaton = 0.2", "task.validaton = 0.2: unknown key; did you mean 'validation'?"),
        (
            'source = "digits"',
            'source = "digits", limt = 3',
            "task.data.limt = 3: unknown key; did you mean 'limit'?",
        ),
        (
            'data = { source = "digits" }',
            'data = { source = "folder", path = "x", sise = 3 }',
            "task.data.sise = 3: unknown key; did you mean 'size'?",
        ),
        ("momentum", "momentm", "training.momentm = 0.9: unknown key; did you mean 'momentum'?"),
        ("log = true", "lgo = true", "training.lr.lgo = true: unknown key; did you mean 'log'?"),
        (
            "momentum = 0.9",
            "momentum = { choices = [0.1], choice = 1 }",
            "training.momentum.choice = 1: unknown key; did you mean 'choices'?",
        ),
        ("gamma", "gama", "schedule.gama = 0.1: unknown key; did you mean 'gamma'?"),
        (
            "[arms.monotone]",
            "[arms.monotone.trainig]",
            "arms.monotone.trainig = {}: unknown key; did you mean 'training'?",
        ),
        ("amplify =", "amplfy =", "arms.ralr.amplfy = {"),
        (
            "[arms.monotone]",
            "[arms.monotone.training]\nepoch = 3",
            "arms.monotone.training.epoch = 3: unknown key; did you mean 'epochs'?",
        ),
        ("probability =", "probabilty =", "arms.ralr.amplify.probabilty = {"),
        ("blocks = 1", "block = 1", "search.block = 1: unknown key; did you mean 'blocks'?"),
        ("lease_s = 30", "lease = 30", "storage.lease = 30: unknown key; did you mean 'lease_s'?"),
        ("lease_s = 30", "x = 30", "storage.x = 30: unknown key; allowed: lease_s"),
    ],
)
def test_an_unknown_key_suggests_the_nearest_known_one(old: str, new: str, line: str) -> None:
    found = [each for each in complaints(DESIGN.but(old, new)) if "unknown key" in each]
    assert len(found) == 1
    assert found[0].startswith(line)
    assert "did you mean" in found[0] or "allowed: " in found[0]


def test_everything_at_once() -> None:
    text = (
        DESIGN.but("seed = 0", "sed = 0")
        .but('model = "small_cnn"', "")
        .but("epochs = 12", "epochs = 0")
        .but("high = 1.0, log", "high = 1e-4, log")
        .but('augment = ["crop"]', f"augment = {'[1]'}")
        .but("gamma = 0.1", "gamma = 2")
        .but("[arms.monotone]", '[arms."a/b"]')
        .but("low = 0.05, high = 0.6", "low = 0.6, high = 0.05")
        .but("trials = 24 ", "trials = -1 ")
        .but('pruner = "median"', 'pruner = "mean"')
        .but("lease_s = 30", 'lease_s = "30"')
    )
    keys = [line.split(" = ")[0].removesuffix(" is missing") for line in complaints(text)]
    assert sorted(keys) == sorted(
        [
            "study.sed",
            "task.model",
            "training.epochs",
            "training.lr",
            "training.augment[0]",
            "schedule.gamma",
            'arms."a/b"',
            "arms.ralr.amplify.probability",
            "search.trials",
            "search.pruner",
            "storage.lease_s",
            "study.baseline",
        ]
    )


def test_an_empty_file_reports_its_required_keys() -> None:
    assert complaints("") == [f"{table} is missing" for table in ("study", "task", "training", "arms", "search")]


def test_missing_keys_are_named_one_by_one() -> None:
    text = '[study]\n[task]\nkind = "classification"\n[training]\n[arms.a]\n[search]\n'
    missing = ("study.name", "study.baseline", "task.data", "task.model", "training.epochs", "training.batch_size")
    *required, trials = complaints(text)
    assert required == [f"{key} is missing" for key in (*missing, "training.lr")]
    assert trials == "search.trials is missing; give it, or search.budget"


def test_every_line_is_one_line() -> None:
    (line,) = complaints('"x\\ny\\u2028\\u001b[31m" = 3\n' + DESIGN)
    assert line.isprintable()
    assert line.startswith('"x\\ny\\u2028\\u001b[31m" = 3: unknown key; allowed: arms, ')


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (["search", "start", 0, "lr"], "search.start[0].lr"),
        (["arms", "a.b", "amplify"], 'arms."a.b".amplify'),
        (["arms", "", 'a"b'], 'arms."".""a\\"b"'.replace('.""a', '."a')),
        ([], "the file"),
    ],
)
def test_key_paths_read_as_in_toml(path: list[str | int], text: str) -> None:
    assert dotted(path) == text


def test_long_values_are_truncated() -> None:
    assert shown("a" * 78) == '"' + "a" * 78 + '"'
    assert shown("a" * 79) == '"' + "a" * 78 + "…"
    assert shown(["ä", {"b": 1.5}]) == '["ä", {"b": 1.5}]'


def test_one_line() -> None:
    assert one_line("ä b\n\x1b\u2028\x7f") == "ä b\\n\\x1b\\u2028\\x7f"


def nested(levels: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for _ in range(levels - 1):
        table = {"a": table}
    return table


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({"a": 2**63 - 1, "b": -(2**63)}, []),
        ({"a": [1, {"b": 2**63}], "c": -(2**63) - 1}, ["a[1].b: a whole number", "c: a whole number"]),
        ({"a": 1e300, "b": True, "c": "x", "d": None}, []),
        (nested(32), []),
        (nested(33), [".".join("a" * 32) + ": nested deeper than 32 levels"]),
    ],
)
def test_values_beyond_the_limits(raw: Mapping[str, Any], found: list[str]) -> None:
    lines = unreadable(raw)
    assert len(lines) == len(found)
    assert all(line.startswith(start) for line, start in zip(lines, found, strict=True))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("epochs = 12", "epochs = 0x" + "f" * 6000, "training.epochs: a whole number has at most 64 bits"),
        ("epochs = 12", "epochs = 1" + "0" * 5000, "not valid TOML: Exceeds the limit"),
        ("validation = 0.2", "model_options." + "a." * 1000 + "b = 1", 'line 11: "model_options.a.a.'),
        ("validation = 0.2", "model_options" + ' . "a.b"' * 40 + " = 1", 'line 11: "model_options . '),
        ("[task]", "[" + "'a b'." * 40 + "c]\n[task]", "line 7: \"'a b'.'a b'."),
        ("validation = 0.2", "model_options" + ".a" * 28 + " = { b.c.d = 1 }", "task.model_options.a.a.a."),
        ("validation = 0.2", "model_options.a = " + "[" * 100 + "]" * 100, "task.model_options.a[0][0]"),
        ("validation = 0.2", "model_options.a = " + "[" * 9999 + "]" * 9999, "not valid TOML: "),
    ],
)
def test_too_large_numbers_and_too_deep_tables(old: str, new: str, line: str) -> None:
    (found,) = complaints(DESIGN.but(old, new))
    assert found.startswith(line)


@pytest.mark.parametrize(
    "text",
    [
        "# " + "." * 1000,
        "# a sentence. And another... " * 50,
        'x = "' + "1.2.3.4 " * 100 + '"',
        "x = [" + "0.5, " * 500 + "]",
        ".".join("a" * 32) + " = 1",
        '"a.b' * 1000,
    ],
)
def test_dots_outside_of_long_keys_pass(text: str) -> None:
    assert long_key(text) is None


def test_a_key_of_many_parts_is_reported_with_its_line_before_parsing() -> None:
    """Otherwise tomllib would take hours: a megabyte has room for half a million parts."""
    text = "a = 1\n" + "b." * 480_000 + "c = 2"
    assert long_key(text) == f'line 2: "{"b." * 32}": a dotted key has at most 32 parts'
    assert complaints(text) == [long_key(text)]


def test_too_many_values_are_refused() -> None:
    many = ", ".join(f"{n}" for n in range(10_000))
    (line,) = complaints(DESIGN.but('source = "digits"', f'source = "digits", classes = [{many}]'))
    assert line == "task.data.classes: too many values: a file has at most 10000"


def test_only_the_first_of_many_problems_are_reported() -> None:
    lines = complaints(DESIGN.but("epochs = 12", "epochs = 12\n" + "".join(f"k{n} = 1\n" for n in range(150))))
    assert len(lines) == 101
    assert lines[0].startswith("training.k0 = 1: unknown key")
    assert lines[-1] == "and 50 more problems"


def test_long_keys_and_lines_are_truncated() -> None:
    (line,) = complaints(DESIGN.but("epochs = 12", f"epochs = 12\n{'k' * 5000} = 1"))
    assert line.startswith(f'training."{"k" * 79}…" = 1: unknown key')
    dates = ", ".join(f"k{n} = 2020-01-01" for n in range(900))
    (line,) = complaints(DESIGN.but("blocks = 1", f"pruner_options = {{ {dates} }}"))
    assert len(line) == 2000
