"""The training keys that belong to image classification alone, with every search settled."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassificationOptions:
    """What `ClassificationTask` needs to know of a configuration to make batches and losses."""

    augment: tuple[str, ...] = ()
    """Names of augmentations and mixings, in the order in which they are applied."""
    label_smoothing: float = 0.0
    """In [0, 1), as torch's cross_entropy has it."""
