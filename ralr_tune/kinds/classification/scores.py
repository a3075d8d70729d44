"""The metrics of a classification (see metrics.py), accumulated batch by batch on the device for several slots at once.

Shapes: outputs (N, slots, classes), labels (N,) int64, values (slots,) float64. Counts stay integers until the end, so
that they do not depend on the order of the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ralr_tune.errors import UsageError

TOP = 5


class Score(Protocol):
    """One metric of all slots."""

    def add(self, outputs: Tensor, labels: Tensor) -> None:
        """Adds one batch."""

    def values(self) -> Tensor:
        """The metric over all batches so far (at least one), on the device."""


def check_classes(metric: str, classes: int) -> None:
    """Raises UsageError if every network would score the same: with five classes, each is in the top 5."""
    if metric == "top5_accuracy" and classes <= TOP:
        raise UsageError(
            f"study.metric = {metric!r}: {classes} classes; needs {TOP + 1} or more; with fewer use 'accuracy'"
        )


def metrics_for(classes: int) -> list[str]:
    """The metrics in which networks for so many classes can differ."""
    return [name for name in SCORES if name != "top5_accuracy" or classes > TOP]


def make_score(metric: str, classes: int, slots: int, device: str) -> Score:
    """A new score of the metric. Raises KeyError for a name that metrics.py does not have."""
    return SCORES[metric](classes, slots, device)


class Accuracy:
    """Share of images whose class is among the largest `top` outputs."""

    top = 1

    def __init__(self, classes: int, slots: int, device: str) -> None:
        self._correct = torch.zeros(slots, dtype=torch.int64, device=device)
        self._images = 0

    def add(self, outputs: Tensor, labels: Tensor) -> None:
        self._correct += _hits(outputs, labels, self.top).sum(0)
        self._images += len(labels)

    def values(self) -> Tensor:
        return self._correct.double() / self._images


class TopFiveAccuracy(Accuracy):
    top = TOP


class BalancedAccuracy:
    """Mean of the per-class accuracies. Classes without images are ignored."""

    def __init__(self, classes: int, slots: int, device: str) -> None:
        self._correct = torch.zeros(classes, slots, dtype=torch.int64, device=device)
        self._images = torch.zeros(classes, dtype=torch.int64, device=device)

    def add(self, outputs: Tensor, labels: Tensor) -> None:
        self._correct.index_add_(0, labels, _hits(outputs, labels, 1).long())
        self._images.index_add_(0, labels, torch.ones_like(labels))

    def values(self) -> Tensor:
        recalls = self._correct / self._images.clamp(min=1).double()[:, None]
        return recalls.sum(0) / (self._images > 0).sum()


class Loss:
    """Mean cross-entropy in nats, NaN if it is infinite. Computed per image in float32, summed in float64."""

    def __init__(self, classes: int, slots: int, device: str) -> None:
        self._sum = torch.zeros(slots, dtype=torch.float64, device=device)
        self._images = 0

    def add(self, outputs: Tensor, labels: Tensor) -> None:
        wanted = labels[:, None].expand(outputs.shape[:2])
        each = F.cross_entropy(outputs.float().flatten(0, 1), wanted.flatten(), reduction="none")
        self._sum += each.view(wanted.shape).sum(0, dtype=torch.float64)
        self._images += len(labels)

    def values(self) -> Tensor:
        mean = self._sum / self._images
        return torch.where(mean.isfinite(), mean, torch.nan)


SCORES: Mapping[str, Callable[[int, int, str], Score]] = {
    "accuracy": Accuracy,
    "balanced_accuracy": BalancedAccuracy,
    "top5_accuracy": TopFiveAccuracy,
    "loss": Loss,
}


def _hits(outputs: Tensor, labels: Tensor, top: int) -> Tensor:
    """Whether the class of each image is among the `top` largest outputs, (N, slots)."""
    if top == 1:
        return outputs.argmax(2) == labels[:, None]
    return (outputs.topk(top, dim=2).indices == labels[:, None, None]).any(2)
