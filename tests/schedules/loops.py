"""Loops around `RandomAmplifyLR`: every torch scheduler as its base, recorded rates, states saved to a file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import SGD, Optimizer, swa_utils
from torch.optim import lr_scheduler as torchs
from torch.optim.lr_scheduler import LRScheduler

from ralr_tune.schedules.amplification import Amplification
from ralr_tune.schedules.scheduler import RandomAmplifyLR

STEPS = 24
ARGUMENTS: dict[str, Any] = {"probability": 0.5, "lower": 1.5, "upper": 3.0, "seed": 4}

Factory = Callable[[Optimizer], LRScheduler]


def _sequential(optimizer: Optimizer) -> LRScheduler:
    members: list[LRScheduler] = [torchs.LinearLR(optimizer, 0.1, 1.0, 5), torchs.CosineAnnealingLR(optimizer, 20)]
    return torchs.SequentialLR(optimizer, members, [5])


def _chained(optimizer: Optimizer) -> LRScheduler:
    return torchs.ChainedScheduler([torchs.ConstantLR(optimizer, 0.5, 6), torchs.ExponentialLR(optimizer, 0.9)])


def _cyclic(optimizer: Optimizer) -> LRScheduler:
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return torchs.CyclicLR(optimizer, [rate / 10 for rate in rates], rates, 4)


def _one_cycle(optimizer: Optimizer) -> LRScheduler:
    return torchs.OneCycleLR(optimizer, [float(group["lr"]) for group in optimizer.param_groups], STEPS + 1)


def _annealed_average(optimizer: Optimizer) -> LRScheduler:
    return swa_utils.SWALR(optimizer, swa_lr=0.003, anneal_epochs=6)


def _amplified(optimizer: Optimizer) -> LRScheduler:
    return RandomAmplifyLR(optimizer, torchs.StepLR(optimizer, 5), probability=0.5, lower=1.2, upper=1.4, seed=9)


BASES: dict[str, Factory] = {
    "constant": lambda o: torchs.ConstantLR(o, 0.5, 6),
    "step": lambda o: torchs.StepLR(o, 5),
    "multistep": lambda o: torchs.MultiStepLR(o, [8, 16]),
    "exponential": lambda o: torchs.ExponentialLR(o, 0.9),
    "linear": lambda o: torchs.LinearLR(o, 1.0, 0.1, 20),
    "polynomial": lambda o: torchs.PolynomialLR(o, 30, 2.0),
    "cosine": lambda o: torchs.CosineAnnealingLR(o, 10, 1e-4),
    "sgdr": lambda o: torchs.CosineAnnealingWarmRestarts(o, 4, 2),
    "lambda": lambda o: torchs.LambdaLR(o, lambda step: 1 / (1 + step)),
    "multiplicative": lambda o: torchs.MultiplicativeLR(o, lambda step: 0.95),
    "cyclic": _cyclic,
    "one_cycle": _one_cycle,
    "plateau": lambda o: torchs.ReduceLROnPlateau(o, patience=1, cooldown=1),
    "sequential": _sequential,
    "chained": _chained,
    "swa": _annealed_average,
    "amplified": _amplified,
}


def two_groups(lr: Any = 0.1, other: Any = 0.02) -> SGD:
    """An optimizer with two param groups with different rates."""
    groups = [{"params": [Parameter(torch.zeros(2))]}, {"params": [Parameter(torch.zeros(3))], "lr": other}]
    return SGD(groups, lr=lr, momentum=0.9)


def rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def advance(optimizer: Optimizer, scheduler: LRScheduler, index: int) -> None:
    """One step of both, with every warning an error; ReduceLROnPlateau gets a loss that stops falling."""
    base = getattr(scheduler, "base_scheduler", scheduler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
        if isinstance(base, torchs.ReduceLROnPlateau):
            scheduler.step(metrics=1 / (1 + min(index, 4)))  # type: ignore[call-arg]
        else:
            scheduler.step()


def trace(optimizer: Optimizer, scheduler: LRScheduler, first: int = 0, last: int = STEPS) -> list[list[float]]:
    """The rates of the steps first..last-1: a row for each step, a column for each param group."""
    rows = []
    for index in range(first, last):
        rows.append(rates(optimizer))
        advance(optimizer, scheduler, index)
    return rows


def amplified(make: Factory, optimizer: Optimizer | None = None, **arguments: Any) -> tuple[Optimizer, RandomAmplifyLR]:
    optimizer = optimizer or two_groups()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return optimizer, RandomAmplifyLR(optimizer, make(optimizer), **{**ARGUMENTS, **arguments})


def expected_factors(count: int = STEPS, seed: int = 4) -> list[float]:
    return [Amplification(0.5, 1.5, 3.0).factor(seed, index) for index in range(count)]


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
