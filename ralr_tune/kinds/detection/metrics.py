"""The metrics of object detection. No torch: a study file is checked without it."""

from __future__ import annotations

from collections.abc import Mapping

from ralr_tune.metric import Metric


def _share(name: str, label: str) -> Metric:
    """A share, with a margin of half a percentage point (our choice)."""
    return Metric(name, direction="maximize", unit="share", worst=0.0, default_margin=0.005, label=label)


METRICS: Mapping[str, Metric] = {
    name: _share(name, label) for name, label in (("map", "mAP"), ("map_50", "mAP@0.5"), ("map_75", "mAP@0.75"))
}
"""By name (`study.metric`), as torchmetrics calls them; the first is the default. `scores.py` computes them.

map      COCO's mean average precision: the mean over the classes and over the IoU thresholds 0.50, 0.55 ... 0.95
map_50   mean average precision at the IoU threshold 0.5
map_75   at 0.75
"""
