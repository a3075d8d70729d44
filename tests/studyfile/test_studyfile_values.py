"""Fixed, range, choice: what each form accepts and contains, and its text."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from pydantic import ValidationError

from ralr_tune.studyfile.values import Choice, Count, Positive, Range, Searchable, Share, encode, one_of

PositiveRange = Range[Positive]
CountRange = Range[Count]


def refusal(kind: Any, table: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(table)
    return str(caught.value)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"low": 1.0, "high": 1.0}, "low = 1 and high = 1: low must be below high"),
        ({"low": 2.0, "high": 1.0}, "low = 2 and high = 1: low must be below high"),
        ({"low": 0.0, "high": 1.0}, "greater than 0"),
        ({"low": 0.5, "high": math.inf}, "finite"),
        ({"low": math.nan, "high": 1.0}, "finite"),
        ({"low": "0.1", "high": 1.0}, "valid number"),
        ({"low": True, "high": 2.0}, "valid number"),
        ({"low": 0.1}, "high"),
        ({"low": 0.1, "high": 1.0, "logg": True}, "logg"),
        ({"low": 0.1, "high": 1.0, "log": 1}, "boolean"),
        ({"low": 0.1, "high": 1.0, "log": True, "step": 0.1}, "give one of the two"),
        ({"low": 0.1, "high": 1.0, "step": 2.0}, "at most high - low = 0.9"),
        ({"low": 0.1, "high": 1.0, "step": -0.1}, "greater than 0"),
        ({"low": 0.1, "high": 1.0, "step": 0.4}, "does not reach high = 1; the nearest value on the grid is 0.9"),
        ({"low": 0.1, "high": 1.0, "step": 1e-300}, "must be above 9e-07"),
        ({"low": 1e-300, "high": 1e300, "step": 1e-300}, "must be above"),
    ],
)
def test_impossible_ranges(table: dict[str, Any], words: str) -> None:
    assert words in refusal(PositiveRange, table)


def test_a_log_range_needs_a_low_above_zero() -> None:
    assert "low must be above 0" in refusal(Range[Share], {"low": 0, "high": 1, "log": True})
    assert "low = 1" not in refusal(CountRange, {"low": 0, "high": 8, "log": True})


@pytest.mark.parametrize(
    "table", [{"low": 1, "high": 2.5}, {"low": 1, "high": 4, "step": 0.5}, {"low": 1.0, "high": 4}]
)
def test_a_range_of_whole_numbers_has_whole_ends(table: dict[str, Any]) -> None:
    assert "valid integer" in refusal(CountRange, table)


def test_ends_of_a_range_of_numbers_may_be_written_as_whole_numbers() -> None:
    domain = PositiveRange.model_validate({"low": 1, "high": 3, "step": 1})
    assert [type(end) for end in (domain.low, domain.high, domain.step)] == [float, float, float]


@pytest.mark.parametrize(
    ("value", "inside"),
    [(0.1, True), (1.0, True), (0.3, True), (0.35, False), (0.0999, False), (1.1, False), (1, True), (True, False)],
)
def test_a_stepped_range_contains_its_grid_and_both_ends(value: Any, inside: bool) -> None:
    assert PositiveRange(low=0.1, high=1.0, step=0.1).contains(value) is inside


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "0.5", None, [0.5], {"a": 1}])
def test_no_range_contains_a_non_number(value: Any) -> None:
    assert not PositiveRange(low=0.1, high=1.0).contains(value)
    assert not CountRange(low=1, high=9, step=1).contains(value)


@pytest.mark.parametrize(
    ("value", "inside"), [(3, True), (3.0, False), (4, False), (9, True), (10, False), (True, False)]
)
def test_a_range_of_whole_numbers_contains_only_whole_numbers(value: Any, inside: bool) -> None:
    assert CountRange(low=1, high=9, step=2).contains(value) is inside


def test_a_range_as_text() -> None:
    assert PositiveRange(low=0.001, high=1.0, log=True).describe() == {
        "low": 0.001,
        "high": 1.0,
        "log": True,
        "step": None,
    }
    assert str(PositiveRange(low=0.001, high=1.0, log=True)) == "0.001 to 1.0 (log)"
    assert str(CountRange(low=2, high=8, step=3)) == "2 to 8 in steps of 3"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"choices": []}, "at least 1"),
        ({"choices": [0.1, 0.2, 0.1]}, "list each choice once"),
        ({"choices": [1, 1.0]}, "list each choice once"),
        ({"choices": [0.1, 0.0]}, "greater than 0"),
        ({"choices": [0.1, True]}, "valid number"),
        ({"choices": 0.1}, "tuple"),
        ({"choices": [n + 1.0 for n in range(101)]}, "at most 100"),
    ],
)
def test_impossible_choices(table: dict[str, Any], words: str) -> None:
    assert words in refusal(Choice[Positive], table)


@pytest.mark.parametrize(
    ("kind", "choices", "held", "not_held"),
    [
        (Positive, [0.5, 1.0], [0.5, 1.0, 1], [True, "1.0", 2, math.nan]),
        (Count, [1, 2], [1, 2], [1.0, True, "1"]),
        (bool, [True, False], [True, False], [1, 0, "true"]),
        (str, ["sgd", "adam"], ["sgd"], ["SGD", 1, ["sgd"]]),
        (tuple[str, ...], [(), ("crop", "flip")], [["crop", "flip"], []], ["crop", ["flip", "crop"], {"crop": 1}]),
    ],
)
def test_a_choice_contains_exactly_its_values(
    kind: Any, choices: list[Any], held: list[Any], not_held: list[Any]
) -> None:
    domain = Choice[kind](choices=tuple(choices))
    assert [value for value in held if not domain.contains(value)] == []
    assert [value for value in not_held if domain.contains(value)] == []


def test_contains_accepts_any_value() -> None:
    assert not Choice[str](choices=("sgd",)).contains(datetime.date(2022, 1, 1))


def test_lists_are_stored_as_text_and_decoded_again() -> None:
    domain = Choice[tuple[str, ...]](choices=((), ("crop", "flip")))
    assert domain.describe() == {"choices": ["[]", '["crop", "flip"]']}
    assert domain.decode('["crop", "flip"]') == ("crop", "flip")
    with pytest.raises(ValueError, match="'crop': must be one of"):
        domain.decode("crop")


@pytest.mark.parametrize("value", ["sgd", 1, 0.5, True])
def test_scalars_are_stored_unchanged(value: Any) -> None:
    assert encode(value) is value


def test_values_cannot_be_changed() -> None:
    domain = PositiveRange(low=0.1, high=1.0)
    with pytest.raises(ValidationError, match="frozen"):
        domain.low = 0.2  # type: ignore[misc]


def test_the_end_of_a_message() -> None:
    assert one_of(["seed", "name"], "sed") == "did you mean 'seed'?"
    assert one_of(["seed", "name"], "xyz") == "allowed: seed, name"


def test_searchable_takes_the_three_forms() -> None:
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(Searchable[Positive])
    assert adapter.validate_python(0.1) == 0.1
    assert isinstance(adapter.validate_python({"low": 0.1, "high": 1.0}), Range)
    assert isinstance(adapter.validate_python({"choices": [0.1, 1.0]}), Choice)
