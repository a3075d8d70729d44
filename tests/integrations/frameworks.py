"""What the tests of this folder share: a small network, its data, and the rates that every loop must set.

The frameworks live in an environment of their own (CONTRIBUTING.md says how to make it); without it these tests skip.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Linear
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.utils.data import TensorDataset

from ralr_tune.schedules.scheduler import RandomAmplifyLR

STEPS, STOP = 16, 4
"""A run, and where it is interrupted: at a rate that is amplified."""
ARGUMENTS: dict[str, Any] = {"probability": 0.5, "lower": 1.5, "upper": 3.0, "seed": 4}


def framework(name: str) -> Any:
    """The module, or a skip of the whole file that says how to get it."""
    missing = f"{name} is not in this environment: see CONTRIBUTING.md, Integrations"
    return pytest.importorskip(name, reason=missing, exc_type=ImportError)


def network() -> Linear:
    torch.manual_seed(0)
    return Linear(3, 1)


def data(samples: int = 2 * STEPS) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(samples, 3, generator=generator), torch.randn(samples, 1, generator=generator))


def loss_of(model: Any, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    return torch.nn.functional.mse_loss(model(inputs), targets)


def sgd(model: torch.nn.Module) -> SGD:
    return SGD(model.parameters(), lr=0.1, momentum=0.9)


def wrapped(optimizer: Optimizer, base: LRScheduler | None = None) -> RandomAmplifyLR:
    return RandomAmplifyLR(optimizer, base or CosineAnnealingLR(optimizer, STEPS + 4), **ARGUMENTS)


def rate(optimizer: Any) -> float:
    return float(optimizer.param_groups[0]["lr"])


def expected() -> list[float]:
    """The rates of `wrapped` around `sgd` in a loop of this project's own."""
    optimizer = sgd(network())
    scheduler = wrapped(optimizer)
    return [float(each) for each in scheduler.preview(STEPS).rates[:, 0]]
