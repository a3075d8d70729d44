"""The [training] keys of image classification in one configuration: one value each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassificationOptions:
    """What `ClassificationTask` needs from a configuration to build batches and losses."""

    augment: tuple[str, ...] = ()
    """Names of augmentations and mixings, in the order in which they are applied."""
    label_smoothing: float = 0.0
    """In [0, 1), as in torch's cross_entropy."""
