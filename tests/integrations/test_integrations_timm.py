"""timm's optimizers under RandomAmplifyLR, and timm's schedulers as its base, in the loop of timm's train.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import Optimizer

from ralr_tune.schedules.amplification import Amplification
from ralr_tune.schedules.scheduler import RandomAmplifyLR
from tests.integrations.frameworks import (
    ARGUMENTS,
    STEPS,
    STOP,
    data,
    expected,
    framework,
    loss_of,
    network,
    rate,
    sgd,
    wrapped,
)

optimizers = framework("timm.optim")
schedulers = framework("timm.scheduler")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

UPDATES = 2
"""Updates of the weights in an epoch."""


def one_step(model: torch.nn.Module, optimizer: Optimizer, index: int) -> None:
    optimizer.zero_grad()
    loss_of(model, data()[2 * index % 8 : 2 * index % 8 + 2]).backward(create_graph="hessian" in str(type(optimizer)))
    optimizer.step()


def usable() -> list[str]:
    """All that timm makes for a small network by name, without packages that are not here.

    Not kron's: they compile their own steps for a minute.
    """
    found = []
    for name in [*optimizers.list_optimizers(exclude_filters=["kron*"]), "lookahead_adamw", "lookahead_sgd"]:
        try:
            optimizers.create_optimizer_v2(network(), opt=name, lr=0.1)
        except (AssertionError, ImportError, ModuleNotFoundError, RuntimeError, TypeError, ValueError):
            continue
        found.append(name)
    return found


@pytest.mark.parametrize("name", usable())
def test_timms_optimizers_resume(name: str) -> None:
    def run(states: Any, first: int, last: int) -> tuple[list[float], Any]:
        model = network()
        optimizer = optimizers.create_optimizer_v2(model, opt=name, lr=0.1)
        scheduler = wrapped(optimizer)
        if states:
            for each, state in zip((model, optimizer, scheduler), states, strict=True):
                each.load_state_dict(state)
        rates = []
        for index in range(first, last):
            rates.append(rate(optimizer))
            one_step(model, optimizer, index)
            scheduler.step()
        return rates, [each.state_dict() for each in (model, optimizer, scheduler)]

    first, states = run(None, 0, STOP)
    assert states[1]["param_groups"][0]["lr"] == pytest.approx(states[2]["base_lrs"][0])
    assert first + run(states, STOP, STEPS)[0] == pytest.approx(expected(), rel=1e-12)


WARM = {"warmup_t": 2, "warmup_lr_init": 0.01}
BASES: dict[str, Any] = {
    "cosine": lambda o, **k: schedulers.CosineLRScheduler(o, t_initial=10, lr_min=1e-3, **WARM, **k),
    "cosine_prefix": lambda o, **k: schedulers.CosineLRScheduler(o, t_initial=10, warmup_prefix=True, **WARM, **k),
    "cosine_noise": lambda o, **k: schedulers.CosineLRScheduler(o, t_initial=10, noise_range_t=3, **k),
    "tanh": lambda o, **k: schedulers.TanhLRScheduler(o, t_initial=10, **WARM, **k),
    "step": lambda o, **k: schedulers.StepLRScheduler(o, decay_t=3, decay_rate=0.5, **WARM, **k),
    "multistep": lambda o, **k: schedulers.MultiStepLRScheduler(o, decay_t=[3, 6], decay_rate=0.5, **WARM, **k),
    "poly": lambda o, **k: schedulers.PolyLRScheduler(o, t_initial=10, **WARM, **k),
    "plateau": lambda o: schedulers.PlateauLRScheduler(o, patience_t=0, **WARM),
}
CASES = [(name, in_epochs) for name in BASES for in_epochs in (True, False) if in_epochs or name != "plateau"]


def epochs(scheduler: Any, optimizer: Optimizer, first: int, last: int) -> list[float]:
    """timm's train.py."""
    rates, updates = [], first * UPDATES
    for epoch in range(first, last):
        for _ in range(UPDATES):
            rates.append(rate(optimizer))
            optimizer.step()
            updates += 1
            scheduler.step_update(num_updates=updates, metric=1.0)
        scheduler.step(epoch + 1, 1 / (1 + min(epoch, 4)))
    return rates


@pytest.mark.parametrize(("name", "in_epochs"), CASES)
def test_a_timm_scheduler_can_be_the_base(name: str, in_epochs: bool) -> None:
    options = {} if name == "plateau" else {"t_in_epochs": in_epochs}
    bare = sgd(network())
    own = epochs(BASES[name](bare, **options), bare, 0, 8)
    times = [index // UPDATES if in_epochs else index for index in range(8 * UPDATES)]
    factors = [Amplification(0.5, 1.5, 3.0).factor(4, time) for time in times]
    whole = [lr * factor for lr, factor in zip(own, factors, strict=True)]

    def made() -> tuple[Optimizer, RandomAmplifyLR]:
        optimizer = sgd(network())
        RandomAmplifyLR(
            optimizer, BASES[name](optimizer, **options), **ARGUMENTS
        )  # a cell of a notebook that runs again
        return optimizer, RandomAmplifyLR(optimizer, BASES[name](optimizer, **options), **ARGUMENTS)

    optimizer, scheduler = made()
    found = epochs(scheduler, optimizer, 0, 3)
    states = optimizer.state_dict(), scheduler.state_dict()
    optimizer, scheduler = made()
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    assert found + epochs(scheduler, optimizer, 3, 8) == whole

    if name == "plateau":  # it cannot resume without its state
        return
    optimizer, scheduler = made()  # as timm resumes: nothing but the count
    optimizer.load_state_dict(states[0])
    scheduler.step(3) if in_epochs else scheduler.step_update(3 * UPDATES)
    assert epochs(scheduler, optimizer, 3, 8) == whole[3 * UPDATES :]


@pytest.mark.parametrize(("name", "in_epochs"), CASES)
def test_a_preview_of_timms_schedulers(name: str, in_epochs: bool) -> None:
    options = {} if name == "plateau" else {"t_in_epochs": in_epochs}
    optimizer = sgd(network())
    scheduler = RandomAmplifyLR(optimizer, BASES[name](optimizer, **options), **ARGUMENTS)
    preview = scheduler.preview(8, metrics=[1 / (1 + min(epoch, 4)) for epoch in range(8)])
    rates = epochs(scheduler, optimizer, 0, 8 if in_epochs else 4)
    assert preview.rates[:, 0].tolist() == rates[:: UPDATES if in_epochs else 1]
