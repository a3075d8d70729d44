"""The [training] keys of translation in one configuration: one value each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TranslationOptions:
    """What `TranslationTask` needs from a configuration to build batches and losses."""

    label_smoothing: float = 0.0
    """In [0, 1), as in torch's cross_entropy."""
