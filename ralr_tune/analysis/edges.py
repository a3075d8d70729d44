"""Best values that lie at the end of their range, so that the search may have been too narrow (thresholds: our choice).

A study resumes with a widened range (`DESIGN`: a changed file), so the range to try keeps all trials and adds half the
old width beyond the end, on the range's own scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.missing_evidence import MIN_TRIALS
from ralr_tune.bounds import bounds_of
from ralr_tune.metric import Metric
from ralr_tune.records import ArmRecord

NEAR = 0.05  # of the range's width
WIDER = 0.5  # of the range's width


@dataclass(frozen=True)
class Edge:
    """One parameter whose best value lies within 5% of an end of its range."""

    arm: str
    parameter: str
    value: float
    end: Literal["low", "high"]
    low: float
    high: float
    """The range that was searched."""
    log: bool
    try_low: float
    try_high: float
    """The range to try: the searched one, widened at that end as far as the parameter allows."""


def edges(arm: ArmRecord, metric: Metric) -> tuple[Edge, ...]:
    """Edges of the configuration that confirm judged; before that, of the best search trial.

    None below ten finished trials: the best of a few lies near an end by chance.
    """
    if len(study_rows.finished(arm)) < MIN_TRIALS:
        return ()
    params = _best_params(arm, metric)
    return tuple(
        edge for name, domain in arm.dimensions.items() for edge in _edge(arm.name, name, domain, params.get(name))
    )


def _best_params(arm: ArmRecord, metric: Metric) -> Mapping[str, Any]:
    candidate = study_rows.chosen(arm, metric)
    for row in arm.search():
        if candidate is not None and (row.block, row.trial) == candidate:
            return row.params
    ranked = study_rows.ranked(arm.search(), metric)
    return ranked[0][0].params if ranked else {}


def _edge(arm: str, name: str, domain: Mapping[str, Any], value: Any) -> Iterator[Edge]:
    if "choices" in domain or isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, high, log = float(domain["low"]), float(domain["high"]), bool(domain.get("log"))
    if not (math.isfinite(value) and low < high) or (log and min(low, value) <= 0):
        return
    place = _place(float(value), low, high, log)
    end: Literal["low", "high"] = "low" if place < 0.5 else "high"
    if not (place <= NEAR or place >= 1 - NEAR):
        return
    wider = _wider(name, domain, end)
    if wider is not None:
        ends = (wider, high) if end == "low" else (low, wider)
        yield Edge(arm, name, float(value), end, low, high, log, *ends)


def _place(value: float, low: float, high: float, log: bool) -> float:
    """Position of a value in its range, from 0 to 1, on the range's own scale."""
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


def _wider(name: str, domain: Mapping[str, Any], end: Literal["low", "high"]) -> float | None:
    """The new end; None if the parameter allows no more."""
    old, sign = (float(domain["low"]), -1) if end == "low" else (float(domain["high"]), 1)
    limit, allowed = _limit(name, domain, end)
    new = _beyond(domain, old, sign)
    if (limit - old) * sign <= 0 or not math.isfinite(new):
        return None
    if (limit - new) * sign > 0:
        return new
    return limit if allowed else (old + limit) / 2


def _beyond(domain: Mapping[str, Any], old: float, sign: int) -> float:
    """Half the range's width beyond one end: an integer for integer ranges, whole steps, otherwise two digits."""
    low, high, step = float(domain["low"]), float(domain["high"]), domain.get("step")
    if step:
        return old + float(sign * step * max(1, round(WIDER * (high - low) / step)))
    ratio = high / low if domain.get("log") else 0.0
    new = float(old * ratio ** (sign * WIDER)) if ratio else old + sign * WIDER * (high - low)
    if isinstance(domain["low"], int) and isinstance(domain["high"], int) and math.isfinite(new):
        return old + sign * max(1, round(abs(new - old)))
    rounded = float(f"{new:.2g}")
    return rounded if (rounded - old) * sign > 0 else new


def _limit(name: str, domain: Mapping[str, Any], end: Literal["low", "high"]) -> tuple[float, bool]:
    """The limit of a parameter at one end, and whether the limit itself is allowed.

    For a parameter without a row in `bounds`: a range without negative values stays so, and integers from 1 stay >= 1.
    """
    bounds = bounds_of(name)
    if bounds is not None:
        return (bounds.low, bounds.has_low) if end == "low" else (bounds.high, bounds.has_high)
    if end == "high":
        return math.inf, False
    counts = isinstance(domain["low"], int) and domain["low"] >= 1
    return (1.0 if counts else 0.0 if domain["low"] >= 0 else -math.inf), True
