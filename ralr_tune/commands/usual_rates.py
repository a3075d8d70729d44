"""Whether a study's learning rates are usual for its optimizers: a reason to try `range` before a search."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.optimizers import optimizer_spec
from ralr_tune.studyfile.values import Choice, Range

MOSTLY = 0.5
"""Of a range, on its own scale, or of the choices (our choice)."""


def unusual_rates(spec: StudySpec) -> tuple[str, ...]:
    """One sentence for each `lr` that lies mostly outside of what is usual for every optimizer that it may have."""
    return tuple(dict.fromkeys(_unusual(spec))) if spec.kind.needs_torch else ()


def _unusual(spec: StudySpec) -> Iterator[str]:
    for arm in spec.arms:
        for key, (rate, names) in _rates(spec, arm).items():
            usual = [optimizer_spec(name).usual_rates for name in names]
            if max(share_within(rate, low, high) for low, high in usual) < MOSTLY:
                spans = "; ".join(
                    f"{name}: {low:g} to {high:g}" for name, (low, high) in zip(names, usual, strict=True)
                )
                yield f"{key} = {rate} is mostly outside the usual learning rates ({spans})"


def _rates(spec: StudySpec, arm: str) -> dict[str, tuple[Any, list[str]]]:
    """Each learning rate of an arm by the name of its key, and the optimizers that train with it."""
    found: dict[str, tuple[Any, list[str]]] = {}
    tables = spec.optimizer_tables(arm)
    for optimizer in spec.optimizers(arm):
        own = "lr" in tables.get(optimizer, {})
        key, rate = (f"optimizers.{optimizer}.lr", tables[optimizer]["lr"]) if own else ("lr", spec.training(arm)["lr"])
        found.setdefault(key, (rate, []))[1].append(optimizer)
    return found


def share_within(lr: float | Range[float] | Choice[float], low: float, high: float) -> float:
    """The share of a value, range or choice of learning rates that lies from low to high."""
    if not isinstance(lr, Range):
        rates: Sequence[float] = lr.choices if isinstance(lr, Choice) else [lr]
        return sum(low <= rate <= high for rate in rates) / len(rates)
    first, last, _ = lr.numbers()
    ends = (first, last, max(first, low), min(last, high))
    first, last, start, end = map(math.log, ends) if lr.log else ends
    return max(0.0, end - start) / (last - first)
