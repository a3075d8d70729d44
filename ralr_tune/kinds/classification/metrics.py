"""The metrics of a classification. No torch: a study file is checked without it."""

from __future__ import annotations

from collections.abc import Mapping

from ralr_tune.metric import Metric


def _share(name: str) -> Metric:
    """A share of images, with a margin of half a percentage point (our choice)."""
    return Metric(name, direction="maximize", unit="share", worst=0.0, default_margin=0.005)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _share("accuracy"),
        _share("balanced_accuracy"),
        _share("top5_accuracy"),
        Metric("loss", direction="minimize"),
    )
}
"""By name (`study.metric`); the first is the default. `scores.py` computes them.

accuracy           share of images whose largest output is that of their class
balanced_accuracy  mean of the per-class accuracies, over the classes that occur in the split
top5_accuracy      share of images whose class is among the five largest outputs
loss               mean cross-entropy without label smoothing, in nats; unbounded, so it has no worst value
"""
