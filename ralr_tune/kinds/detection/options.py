"""The [training] keys of object detection in one configuration: one value each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectionOptions:
    """What `DetectionTask` needs from a configuration to build batches."""

    augment: tuple[str, ...] = ()
    """Names of augmentations, in the order in which they are applied."""
