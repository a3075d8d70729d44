"""The search dimensions of random amplification for the user's own Optuna objective."""

from __future__ import annotations

from typing import Protocol

from ralr_tune.bounds import BOUNDS
from ralr_tune.schedules.checks import check_number, refusal

Dimension = float | tuple[float, float]
"""A range to search, (low, high), or a fixed number."""


class SuggestsFloat(Protocol):
    """The part of an Optuna trial that is used; any object with this method works."""

    def suggest_float(self, name: str, low: float, high: float, /) -> float: ...


def suggest_amplification(
    trial: SuggestsFloat,
    *,
    probability: Dimension = (0.05, 0.6),
    lower: Dimension = (1.0, 2.0),
    width: Dimension = (0.0, 4.0),
    prefix: str = "",
) -> dict[str, float]:
    """`probability`, `lower` and `upper` as arguments for `RandomAmplifyLR` or `Amplification`.

    The parameters are named amplify.probability, amplify.lower and amplify.width, each after `prefix`. Two
    amplifications in one trial (a GAN's) need two prefixes, such as "generator." and "discriminator.". Our choice:
    upper = lower + width, so that every configuration is valid. Raises ValueError for a probability outside [0, 1], a
    lower outside [1, inf), or a width outside [0, inf).
    """
    if not isinstance(prefix, str):
        raise refusal("prefix", prefix, "a string")
    dimensions = {"probability": probability, "lower": lower, "width": width}
    for name, dimension in dimensions.items():
        _check(name, dimension)
    value = {name: _suggest(trial, f"{prefix}amplify.{name}", dimension) for name, dimension in dimensions.items()}
    return {"probability": value["probability"], "lower": value["lower"], "upper": value["lower"] + value["width"]}


def _check(name: str, dimension: Dimension) -> None:
    interval = BOUNDS[f"amplify.{name}"].interval
    if not isinstance(dimension, tuple | list):
        check_number(name, dimension, interval)
        return
    if len(dimension) != 2:
        raise refusal(name, dimension, "a number or a pair (low, high)")
    low, high = dimension
    check_number(name, low, interval)
    check_number(name, high, f"[{low}, {interval.split(', ')[1]}")


def _suggest(trial: SuggestsFloat, name: str, dimension: Dimension) -> float:
    if isinstance(dimension, tuple | list):
        low, high = dimension
        return trial.suggest_float(name, float(low), float(high))  # Optuna stores bounds as JSON, which has no float32
    return float(dimension)
