"""Checkpoints of a torch trial: one file, read without executing anything that it holds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from ralr_tune.training.files import replacing

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of the file; another number is foreign."""


def save(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Writes `state` (tensors, numbers, texts, lists, dicts) for the trial `identity`."""
    with replacing(path) as beside:
        torch.save({"format": FORMAT, "identity": identity, **state}, beside)


def load(path: Path, identity: str, *, device: str) -> dict[str, Any] | None:
    """The state that the trial `identity` saved; None, with a warning in the log, where the file is foreign or
    damaged."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # damaged bytes: torch documents no list of what comes out
        logger.warning("checkpoint %s cannot be read (%s): starting anew", path, type(error).__name__)
        return None
    if not isinstance(state, dict) or (state.get("format"), state.get("identity")) != (FORMAT, identity):
        logger.warning("checkpoint %s belongs to another trial: starting anew", path)
        return None
    return state
