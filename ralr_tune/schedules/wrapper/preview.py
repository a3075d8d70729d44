"""The rates that a `RandomAmplifyLR` is going to set, without moving it."""

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
from ralr_tune.schedules.wrapper.bases import counts_itself, wants_metric
from ralr_tune.schedules.wrapper.rates import copies, levels

if TYPE_CHECKING:
    from ralr_tune.schedules.scheduler import RandomAmplifyLR


class RatePreview(NamedTuple):
    """Learning rates by step; `ralr_tune.plot_preview` draws them."""

    steps: NDArray[np.int64]
    """Shape (n,): the steps, counted as `last_epoch` counts."""

    base: Floats
    """Shape (n, groups): the rates that the base scheduler sets."""

    factors: Floats
    """Shape (n,)."""

    rates: Floats
    """Shape (n, groups): the rates in force."""


def preview(scheduler: RandomAmplifyLR, steps: int, metrics: Sequence[float] | None) -> RatePreview:
    """See `RandomAmplifyLR.preview`: a copy of the scheduler is stepped, on an optimizer of no weights."""
    check_integer("steps", steps, low=1)
    if metrics is not None and len(metrics) < steps:
        raise refusal("metrics", f"{len(metrics)} values", f"one a step, {steps}")
    if metrics is None and wants_metric(scheduler):
        raise refusal("metrics", None, "one value a step, since ReduceLROnPlateau waits for it")
    twin = _on_no_weights(scheduler)
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of a scheduler that is stepped without its optimizer
        for index in range(steps):
            rows.append((twin.last_epoch, twin.get_base_lr(), twin.factor, copies(twin.optimizer.param_groups)))
            if index < steps - 1:
                _step(twin, () if metrics is None else (metrics[index],))
    columns = list(zip(*rows, strict=True))
    return RatePreview(np.array(columns[0], np.int64), *(np.array(column, np.float64) for column in columns[1:]))


def _on_no_weights(scheduler: RandomAmplifyLR) -> RandomAmplifyLR:
    """A deep copy, on an optimizer with the same param groups but for the weights."""
    weightless = SGD([Parameter(torch.zeros(()))])
    groups = [
        {name: value for name, value in group.items() if name != "params"} for group in scheduler.optimizer.param_groups
    ]
    weightless.param_groups = [{**group, "params": []} for group in copy.deepcopy(groups)]
    return copy.deepcopy(scheduler, {id(level): weightless for level in levels(scheduler.optimizer)})


def _step(twin: RandomAmplifyLR, metric: tuple[float, ...]) -> None:
    if not counts_itself(twin):
        twin.step(*metric)
    elif twin.t_in_epochs:
        twin.step(twin.last_epoch + 1, *metric)
    else:
        twin.step_update(twin.last_epoch + 1, *metric)
