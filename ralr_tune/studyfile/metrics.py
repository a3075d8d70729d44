"""The metrics that a kind of task offers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from ralr_tune.metric import Metric


def metrics_of(kind: str) -> Mapping[str, Metric]:
    """By name, the default one first. The kind must be one of those that exist."""
    found: Mapping[str, Metric] = import_module(f"ralr_tune.kinds.{kind}.metrics").METRICS
    return found


def beside_default(kind: str, name: str | None) -> str | None:
    """The name of a metric, None for the kind's default: what a task is identified by says nothing of that."""
    return None if name == next(iter(metrics_of(kind))) else name


def metric_of(kind: str, name: str | None) -> Metric:
    """The metric of this name; None: the kind's default. Raises KeyError for a name that it does not offer."""
    metrics = metrics_of(kind)
    return metrics[next(iter(metrics)) if name is None else name]
