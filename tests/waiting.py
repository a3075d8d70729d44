"""Waiting, in tests: until something is so, however busy the machine is, and not a moment longer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONG_S = 300.0
"""Nothing that a test waits for takes so long; whatever is bounded by it ends as soon as it can."""


def until(there: Callable[[], T], what: str, *, within_s: float = LONG_S, pause_s: float = 0.1) -> T:
    """The first thing that `there` gives which is true; the test fails, saying `what`, where that never comes."""
    end = time.monotonic() + within_s
    while not (found := there()):
        assert time.monotonic() < end, f"not within {within_s:g} s: {what}"
        time.sleep(pause_s)
    return found
