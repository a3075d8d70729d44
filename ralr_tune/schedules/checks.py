"""Checks of arguments: a ValueError names the field, the value and what is allowed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeGuard

import numpy as np

from ralr_tune.bounds import BOUNDS


def refusal(field: str, value: object, allowed: str) -> ValueError:
    """The form of all error messages of this package."""
    return ValueError(f"{field} = {value!r}; allowed: {allowed}")


def check_number(field: str, value: object, interval: str) -> None:
    """Accepts only numbers in `interval`, in mathematical notation: "[0, 1)"."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    inside = _is_number(value) and low <= value <= high
    if not inside or (value == low and interval[0] == "(") or (value == high and interval[-1] == ")"):
        raise refusal(field, value, f"a number in {interval}")


def check_integer(field: str, value: object, *, low: int, below: int | None = None) -> None:
    """Accepts only integers (also numpy's, not booleans) in [low, below)."""
    if not _is_integer(value) or value < low or (below is not None and value >= below):
        raise refusal(field, value, f"an integer >= {low}" + (f" and < {below}" if below is not None else ""))


def check_parameter(name: str, value: object) -> None:
    """Accepts only values that a study may have (see `bounds`); the message names the field: `name` without its
    table."""
    bounds, field = BOUNDS[name], name.rpartition(".")[2]
    if bounds.integer:
        check_integer(field, value, low=int(bounds.low), below=int(bounds.high))
    else:
        check_number(field, value, bounds.interval)


def check_choice(field: str, value: object, choices: Iterable[str]) -> None:
    """Accepts only one of the given strings."""
    allowed = tuple(choices)
    if not isinstance(value, str) or value not in allowed:
        raise refusal(field, value, ", ".join(allowed))


def _is_number(value: object) -> TypeGuard[float]:
    plain = value.item() if isinstance(value, np.integer | np.floating) else value
    # the last condition excludes nan, infinity and integers too large for a float (TOML has all three)
    return isinstance(plain, int | float) and not isinstance(plain, bool) and abs(plain) <= sys.float_info.max


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
