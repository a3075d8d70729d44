"""What a policy decides in one replay: which arm it calls better, which configuration it returns, what it spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.decisions.worlds import Match, Params


@dataclass(frozen=True)
class Decision:
    """The end of one replay of one policy."""

    claim: int | None
    """The arm (0 or 1) that is called better; None: no claim."""
    recipes: tuple[Params, Params]
    """The configuration that the policy has for each arm."""
    returned: int
    """The arm whose configuration the policy returns."""
    epochs: Mapping[str, int]
    """Trained epochs of both arms, by stage."""


@dataclass(frozen=True)
class Policy:
    """A way to decide. The search is done once for all true differences, since they do not change it, and once for
    all policies with the same `search`."""

    name: str
    search: Callable[[Match], Any]
    decide: Callable[[Match, Any, tuple[float, float]], Decision]
    """From the match, what the search found, and what is added to the values of each arm."""
    settings: str = ""
    """The policy in one line."""


def larger(values: tuple[float, float]) -> int | None:
    """The arm with the larger value; None if both are equal."""
    return None if values[0] == values[1] else int(values[1] > values[0])


def shifted(values: tuple[float, float], shifts: tuple[float, float]) -> tuple[float, float]:
    """The values with what is added to each arm."""
    return values[0] + shifts[0], values[1] + shifts[1]
