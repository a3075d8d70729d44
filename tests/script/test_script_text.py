from __future__ import annotations

import ast
from typing import Any

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.schedules.amplification import Amplification
from ralr_tune.script.parts import construction
from ralr_tune.script.text import arguments, literal, wrapped


@pytest.mark.parametrize("value", [0.1, 1e-5, 3, True, "x'y", 'x"y', "x\n", (0.9, 0.99), (1,), ["a", {"b": 1}], {}])
def test_literals_evaluate_to_their_value(value: Any) -> None:
    assert ast.literal_eval(literal(value)) == value


def test_strings_are_in_double_quotes() -> None:
    assert literal(["a", {"b": "it's"}]) == '["a", {"b": "it\'s"}]'
    assert literal('say "a"') == "'say \"a\"'"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: print}])
def test_values_without_a_literal_are_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="cannot be written as a Python literal"):
        literal(value)


def test_options_become_arguments() -> None:
    assert arguments({"momentum": 0.9, "nesterov": True}) == ["momentum=0.9", "nesterov=True"]
    assert arguments({}) == []
    assert arguments({"class": 1}) == ['**{"class": 1}']


def test_a_short_expression_stays_on_its_line() -> None:
    assert wrapped('f(1, a="x")', indent=4) == 'f(1, a="x")'


def test_a_long_expression_gets_a_line_for_each_argument_and_item() -> None:
    names = ", ".join(f'"class {n}"' for n in range(12))
    found = wrapped(f"g(h('x'), classes=[{names}], **{{'ä': 1}})", indent=4, used=7)
    lines = found.splitlines()
    assert lines[:4] == ["g(", "        h('x'),", "        classes=[", '            "class 0",']
    assert lines[-3:] == ["        ],", "        **{'ä': 1},", "    )"]


def test_a_line_that_fits_with_its_comma_is_not_broken() -> None:
    exact = "x" * (120 - 4 - len("name=,"))
    assert wrapped(f"f(name={exact}, b=1)").splitlines()[1] == f"    name={exact},"
    assert len(wrapped(f"f(name=g({exact[3:]}), b=1)").splitlines()[1]) == 120
    assert len(wrapped(f"f(name=g({exact[2:]}), b=1)").splitlines()) == 6


def test_an_instance_is_built_from_its_non_default_fields() -> None:
    made = Amplification(0.5, 1.0, 2.0, "loguniform")
    assert construction(made) == 'Amplification(probability=0.5, lower=1.0, upper=2.0, law="loguniform")'
    assert construction(made, law="LAW").endswith("upper=2.0, law=LAW)")
