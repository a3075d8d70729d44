"""The future rates of a `RandomAmplifyLR`, computed without a change to it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Parameter
from torch.optim import SGD

from ralr_tune.schedules.checks import check_integer, refusal
from ralr_tune.schedules.perturbation import Floats
from ralr_tune.schedules.wrapper.bases import is_timm_style, needs_metric
from ralr_tune.schedules.wrapper.rates import copies, levels

if TYPE_CHECKING:
    from ralr_tune.schedules.scheduler import RandomAmplifyLR


class RatePreview(NamedTuple):
    """Learning rates by step; `ralr_tune.plot_preview` draws them."""

    steps: NDArray[np.int64]
    """Shape (n,): the steps, counted like `last_epoch`."""

    base: Floats
    """Shape (n, groups): the rates without the factors."""

    factors: Floats
    """Shape (n,)."""

    rates: Floats
    """Shape (n, groups): the rates that training would use."""


def preview(scheduler: RandomAmplifyLR, steps: int, metrics: Sequence[float] | None) -> RatePreview:
    """See `RandomAmplifyLR.preview`: steps a copy of the scheduler, on an optimizer without weights."""
    check_integer("steps", steps, low=1)
    if metrics is not None and len(metrics) < steps:
        raise refusal("metrics", f"{len(metrics)} values", f"one for each step, {steps}")
    if metrics is None and needs_metric(scheduler):
        raise refusal("metrics", None, "one value for each step, because ReduceLROnPlateau needs it")
    stepped = _copy_without_weights(scheduler)
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's warning about a scheduler that is stepped without its optimizer
        for index in range(steps):
            groups = stepped.optimizer.param_groups
            rows.append((stepped.last_epoch, stepped.get_base_lr(), stepped.factor, copies(groups)))
            if index < steps - 1:
                _step(stepped, () if metrics is None else (metrics[index],))
    columns = list(zip(*rows, strict=True))
    return RatePreview(np.array(columns[0], np.int64), *(np.array(column, np.float64) for column in columns[1:]))


def _copy_without_weights(scheduler: RandomAmplifyLR) -> RandomAmplifyLR:
    """A deep copy, on an optimizer with the same param groups but without weights."""
    weightless = SGD([Parameter(torch.zeros(()))])
    groups = [
        {name: value for name, value in group.items() if name != "params"} for group in scheduler.optimizer.param_groups
    ]
    weightless.param_groups = [{**group, "params": []} for group in copy.deepcopy(groups)]
    return copy.deepcopy(scheduler, {id(level): weightless for level in levels(scheduler.optimizer)})


def _step(scheduler: RandomAmplifyLR, metric: tuple[float, ...]) -> None:
    if not is_timm_style(scheduler):
        scheduler.step(*metric)
    elif scheduler.t_in_epochs:
        scheduler.step(scheduler.last_epoch + 1, *metric)
    else:
        scheduler.step_update(scheduler.last_epoch + 1, *metric)
