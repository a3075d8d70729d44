"""What a simulated trial can be judged by. No torch."""

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
"""By the name that a study file gives them (`study.metric`); the first is the default.

`value` is the accuracy of the task's formula, and `accuracy` its old name. `error` is exactly its negative, in the same
unit: a study of either must decide the same and report mirrored numbers.
"""
