"""The global random generators of Python, NumPy and torch, CUDA included: their states, and how they are seeded."""

from __future__ import annotations

import random
import sys
from typing import Any


def seed_all(seed: int) -> None:
    """Seeds those generators whose packages are imported; a package that is imported later starts as it always does."""
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed % 2**32)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


def states() -> dict[str, Any]:
    """All states, in types that torch.load(weights_only=True) reads."""
    version, words, gauss = random.getstate()
    found: dict[str, Any] = {"python": [version, list(words), gauss]}
    if numpy := sys.modules.get("numpy"):
        name, keys, *rest = numpy.random.get_state()
        found["numpy"] = [name, [int(key) for key in keys], *rest]
    if torch := sys.modules.get("torch"):
        found["torch"] = torch.get_rng_state()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def restore(found: dict[str, Any]) -> None:
    """Sets the states that `states` returned."""
    version, words, gauss = found["python"]
    random.setstate((version, tuple(words), gauss))
    if "numpy" in found:
        import numpy as np

        name, keys, *rest = found["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    if "torch" in found:
        import torch

        torch.set_rng_state(found["torch"])
        if "cuda" in found and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(found["cuda"])
