"""Mean average precision by torchmetrics with faster-coco-eval, on boxes in pixels of the stored images.

torchmetrics gives -1 where nothing can be computed; here that is 0, the worst value. Classes without ground truth are
left out of every mean, as in COCO's evaluation. VOC's difficult objects are excluded from every range of sizes: COCO's
evaluation then ignores them, and detections of them, with the ordinary IoU. It has no other way: it overwrites a flag
"ignore" by "iscrowd", whose IoU is another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from ralr_tune.kinds.detection.annotated import Objects

BEYOND_ALL_SIZES = 2e10
"""An area above COCO's largest, 1e5 ** 2."""

SIZES = ("small", "medium", "large")
"""COCO's ranges of areas: below 32 ** 2 pixels, up to 96 ** 2, above."""

IOUS = np.linspace(0.5, 0.95, 10).tolist()
RECALLS = np.linspace(0.0, 1.0, 101).tolist()
"""COCO's, in double precision: torchmetrics' defaults are rounded to float32, and its results therefore differ from
those of COCO's own code by up to 5e-4 where a recall equals one of these (measured)."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What a network found in one image: n boxes (n, 4) in pixels of the stored image, scores (n,), labels (n,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    """From 0."""

    @property
    def finite(self) -> bool:
        return bool(self.boxes.isfinite().all() and self.scores.isfinite().all())


@dataclass(frozen=True, eq=False)
class Precisions:
    """Precision at the ten IoU thresholds, 101 recalls, K classes and four ranges of areas; -1 where undefined."""

    table: NDArray[np.float64]
    """(10, 101, K, 4): ranges all, small, medium, large; at most 100 detections an image."""
    classes: tuple[int, ...]
    """(K,) labels with ground truth or detections."""

    def value(self, metric: str) -> float:
        """A metric of metrics.py; 0 if no image has an object."""
        return _mean(self.table[THRESHOLDS[metric], :, :, 0])

    def of_class(self, metric: str, label: int) -> float | None:
        """The metric of one class; None without ground truth."""
        found = self._of_class(label)
        return None if found is None else _mean(found[THRESHOLDS[metric], :, 0])

    def of_size(self, size: str) -> float | None:
        """`map` of the objects of one range of sizes; None if there are none."""
        found = self.table[..., 1 + SIZES.index(size)]
        return _mean(found) if (found > -1).any() else None

    def curve(self, label: int) -> list[float] | None:
        """Precision of one class at IoU 0.5 and recalls 0, 0.01 ... 1; None without ground truth."""
        found = self._of_class(label)
        return None if found is None else found[0, :, 0].tolist()

    def _of_class(self, label: int) -> NDArray[np.float64] | None:
        """(10, 101, 4)."""
        if label not in self.classes:
            return None
        found = self.table[:, :, self.classes.index(label)]
        return found if (found[..., 0] > -1).any() else None


THRESHOLDS = {"map": slice(None), "map_50": slice(0, 1), "map_75": slice(5, 6)}
"""Of the IoUs 0.50, 0.55 ... 0.95."""


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else 0.0


def precisions(found: Sequence[Detections], wanted: Sequence[Objects]) -> Precisions:
    """Compares the detections of some images (at least one) with their objects."""
    metric = MeanAveragePrecision(
        iou_thresholds=IOUS, rec_thresholds=RECALLS, backend="faster_coco_eval", extended_summary=True
    )
    metric.warn_on_many_detections = False  # COCO's evaluation takes the best 100, and so does this one
    metric.update(
        [{"boxes": each.boxes, "scores": each.scores, "labels": each.labels} for each in found],
        [_target(each) for each in wanted],
    )
    computed = metric.compute()
    if "precision" not in computed or computed["classes"].numel() == 0:  # neither objects nor detections
        return Precisions(np.full((len(IOUS), len(RECALLS), 0, 4), -1.0), ())
    table = computed["precision"][..., -1].double().numpy()
    return Precisions(table, tuple(computed["classes"].reshape(-1).tolist()))


def _target(objects: Objects) -> dict[str, Tensor]:
    areas = np.where(objects.difficult, BEYOND_ALL_SIZES, objects.areas.astype(np.float64))
    return {
        "boxes": torch.from_numpy(objects.corners),
        "labels": torch.from_numpy(objects.labels),
        "iscrowd": torch.from_numpy(objects.crowd.astype(np.int64)),
        "area": torch.from_numpy(areas),
    }


def resampled(
    found: Sequence[Detections], wanted: Sequence[Objects], metric: str, *, draws: int, seed: int
) -> NDArray[np.float64]:
    """The metric on `draws` samples of the images with replacement, (draws,): a bootstrap over images.

    Mean average precision is no mean over images: each sample is evaluated as a whole.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    values = np.empty(draws)
    for draw in range(draws):
        chosen = generator.integers(len(found), size=len(found))
        values[draw] = precisions([found[k] for k in chosen], [wanted[k] for k in chosen]).value(metric)
    return values
