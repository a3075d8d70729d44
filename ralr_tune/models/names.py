"""The names of networks, without importing torch: a study file is checked in a fraction of a second."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ralr_tune.nearest import nearest

CIFAR_DEPTHS = (20, 32, 44, 56, 110)
"""He et al. 2016, table 6."""

FAMILIES: Mapping[str, str] = {
    "preresnet": r"preresnet(\d{1,4})",
    "wide_resnet": r"wrn_(\d{1,4})_(\d{1,3})",
    "densenet_bc": r"densenet_bc_(\d{1,4})_(\d{1,3})",
}
"""Networks whose names have their depth and width: preresnet110, wrn_28_10, densenet_bc_100_12."""

NAMES = (
    "small_cnn",
    *(f"resnet{depth}" for depth in CIFAR_DEPTHS),
    "preresnet20",
    "preresnet110",
    "wrn_16_4",
    "wrn_28_10",
    "densenet_bc_40_12",
    "densenet_bc_100_12",
)
"""This package's networks; of families, those that papers report."""

_OTHERS = "preresnetD, wrn_D_K and densenet_bc_L_K with other numbers"


def family(name: str) -> tuple[str, tuple[int, ...]] | None:
    """The family of a name and the numbers in it; None if it belongs to none."""
    for kind, pattern in FAMILIES.items():
        if found := re.fullmatch(pattern, name, re.ASCII):
            return kind, tuple(map(int, found.groups()))
    return None


def is_unknown(name: str) -> bool:
    """Whether a name is neither one of this package's networks nor a path to another package's."""
    return ":" not in name and name not in NAMES and family(name) is None


def unknown_network(name: str) -> str:
    """The message for a name that `is_unknown`."""
    near = nearest(name, NAMES, cutoff=0.4)
    return (
        f"task.model = {name!r}: no such network{f'; did you mean {near[0]!r}?' if near else ''}"
        f"; allowed: {', '.join(NAMES)}, {_OTHERS}, torchvision:NAME, timm:NAME, package.module:callable"
    )
