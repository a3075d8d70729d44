"""The metrics of a simulated trial. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ralr_tune.metric import Metric

_ACCURACY = Metric("accuracy", direction="maximize", unit="share", worst=0.0, default_margin=0.005)

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _ACCURACY,
        replace(_ACCURACY, name="value"),
        replace(_ACCURACY, name="error", direction="minimize"),
    )
}
"""By name (`study.metric`); the first is the default.

`value` is the accuracy of the task's formula, `accuracy` its old name. `error` is exactly the negative of it, in the
same unit: studies of the two must reach the same decisions and report mirrored numbers.
"""

LOSS = Metric("loss", direction="minimize")
"""Minus the logarithm of the accuracy: measured every epoch on request, for `search.prune_metric`. It orders trials
exactly as the accuracy does."""
