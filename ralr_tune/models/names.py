"""The names of networks, without importing torch: a study file is checked in a fraction of a second."""

from __future__ import annotations

from ralr_tune.nearest import nearest

CIFAR_DEPTHS = (20, 32, 44, 56, 110)
"""He et al. 2016, table 6."""

NAMES = ("small_cnn", *(f"resnet{depth}" for depth in CIFAR_DEPTHS))
"""This package's networks."""


def is_unknown(name: str) -> bool:
    """Whether a name is neither one of this package's networks nor a path to another package's."""
    return ":" not in name and name not in NAMES


def unknown_network(name: str) -> str:
    """The message for a name that `is_unknown`."""
    near = nearest(name, NAMES, cutoff=0.4)
    return (
        f"task.model = {name!r}: no such network{f'; did you mean {near[0]!r}?' if near else ''}"
        f"; allowed: {', '.join(NAMES)}, torchvision:NAME, package.module:callable"
    )
