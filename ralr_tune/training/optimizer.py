"""The optimizers of torch.optim that a study may ask for (see studyfile.optimizers)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from ralr_tune.errors import UsageError
from ralr_tune.nearest import nearest
from ralr_tune.studyfile.optimizers import OPTIMIZER_SPECS

if TYPE_CHECKING:
    from ralr_tune.studyfile.configuration import TrainingConfig


def optimizers() -> Mapping[str, type[Optimizer]]:
    """Optimizer classes by their names in a study file."""
    return {name: getattr(torch.optim, offer.torch_name) for name, offer in OPTIMIZER_SPECS.items()}


def make_optimizer(training: TrainingConfig, parameters: ParamsT, rate: Tensor | None = None) -> Optimizer:
    """The optimizer that `training` describes. Raises UsageError for an unknown name or option, or an impossible value.

    `parameters`: the weights, or torch's groups of them. `rate`: a scalar learning rate on the device, for a fused
    optimizer whose steps are recorded as a CUDA graph; each group needs one of its own.
    """
    known = optimizers()
    if training.optimizer not in known:
        near = nearest(training.optimizer, known, cutoff=0.4)
        raise UsageError(
            f"training.optimizer = {training.optimizer!r}{f'; did you mean {near[0]!r}?' if near else ''}"
            f"; allowed: {', '.join(sorted(known))}"
        )
    chosen = known[training.optimizer]
    allowed = inspect.signature(chosen).parameters
    options = {"lr": training.lr, **optimizer_options(training)}
    try:
        return chosen(parameters, **options | _recording_options(rate, allowed))
    except (TypeError, ValueError) as error:
        names = ", ".join(name for name in allowed if name not in ("params", "lr"))
        raise UsageError(
            f"training.optimizer = {training.optimizer!r} with {options}: {error}; its options: {names}"
        ) from error


def optimizer_options(training: TrainingConfig) -> dict[str, Any]:
    """Keyword arguments of the torch.optim class that `training` names, without the learning rate."""
    one_kernel = {"fused": True} if OPTIMIZER_SPECS[training.optimizer].one_kernel else {}
    return {**training.options, **one_kernel, "weight_decay": training.weight_decay}


def _recording_options(rate: Tensor | None, allowed: Mapping[str, object]) -> dict[str, Any]:
    """Additional options of an optimizer whose steps are recorded."""
    if rate is None:
        return {}
    return {"lr": rate, **({"capturable": True} if "capturable" in allowed else {})}


def state_of_one_weight(training: TrainingConfig) -> Mapping[str, Any]:
    """This optimizer's state of a weight of shape (2,) after one step, by torch's names."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = make_optimizer(training, [weight])
    weight.grad = torch.zeros(2)
    optimizer.step()
    return dict(optimizer.state[weight])
