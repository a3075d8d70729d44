"""Waiting in tests: until a condition holds, however busy the machine is, and no longer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONG_S = 300.0
"""Longer than anything that a test waits for."""


def until(condition: Callable[[], T], what: str, *, within_s: float = LONG_S, pause_s: float = 0.1) -> T:
    """The first true value that `condition` returns; the test fails with `what` if condition is none in time."""
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {within_s:g} s: {what}"
        time.sleep(pause_s)
    return found
