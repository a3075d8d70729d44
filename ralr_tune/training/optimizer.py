"""The optimizers that a study may ask for: those of studyfile.optimizers, and others by import path."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from ralr_tune.errors import UsageError
from ralr_tune.nearest import nearest
from ralr_tune.studyfile.optimizers import OPTIMIZER_SPECS, is_imported, optimizer_spec
from ralr_tune.training.imported_optimizer import arguments_of, load_class
from ralr_tune.training.muon import MuonWithAdamW

if TYPE_CHECKING:
    from ralr_tune.studyfile.configuration import TrainingConfig


def optimizers() -> Mapping[str, type[Optimizer]]:
    """Optimizer classes by their names in a study file."""
    found = {name: getattr(torch.optim, offer.torch_name) for name, offer in OPTIMIZER_SPECS.items()}
    return found | {"muon": MuonWithAdamW}


def optimizer_class(name: str) -> type[Optimizer]:
    """The class of a name or import path. Raises UsageError."""
    if is_imported(name):
        return load_class(name)
    known = optimizers()
    if name in known:
        return known[name]
    near = nearest(name, known, cutoff=0.4)
    raise UsageError(
        f"training.optimizer = {name!r}{f'; did you mean {near[0]!r}?' if near else ''}"
        f"; allowed: {', '.join(sorted(known))}"
    )


def make_optimizer(
    training: TrainingConfig,
    parameters: ParamsT,
    rate: Tensor | None = None,
    order: Sequence[nn.Parameter] | None = None,
) -> Optimizer:
    """The optimizer that `training` describes. Raises UsageError for an unknown name or option, or an impossible value.

    `parameters`: the weights, or torch's groups of them. `rate`: a scalar learning rate on the device, for a fused
    optimizer whose steps are recorded as a CUDA graph; each group needs one of its own. `order`: all weights in the
    order of the network, if the groups have another.
    """
    chosen = optimizer_class(training.optimizer)
    allowed = inspect.signature(chosen).parameters
    options = {"lr": training.lr, **optimizer_options(training)}
    order_option = {"order": order} if chosen is MuonWithAdamW else {}
    try:
        return chosen(parameters, **options | order_option | _recording_options(rate, allowed))
    except Exception as error:
        if not isinstance(error, TypeError | ValueError) and not is_imported(training.optimizer):
            raise
        names = ", ".join(name for name in allowed if name not in ("params", "lr"))
        raise UsageError(
            f"training.optimizer = {training.optimizer!r} with {options}: {error}; its options: {names}"
        ) from error


def optimizer_options(training: TrainingConfig) -> dict[str, Any]:
    """Keyword arguments of the optimizer's class, without the learning rate. Raises UsageError as `make_optimizer`."""
    if is_imported(training.optimizer):
        return arguments_of(training, load_class(training.optimizer))
    one_kernel = {"fused": True} if OPTIMIZER_SPECS[training.optimizer].one_kernel else {}
    return {**training.options, **one_kernel, "weight_decay": training.weight_decay}


def _recording_options(rate: Tensor | None, allowed: Mapping[str, object]) -> dict[str, Any]:
    """Additional options of an optimizer whose steps are recorded."""
    if rate is None:
        return {}
    return {"lr": rate, **({"capturable": True} if "capturable" in allowed else {})}


def state_of_one_weight(training: TrainingConfig) -> Mapping[str, Any]:
    """This optimizer's state of a weight of shape (2,) after one step, by torch's names."""
    optimizer, (weight,) = _after_one_step(training, [torch.Size([2])])
    return dict(optimizer.state[weight])


def state_of_weights(training: TrainingConfig, shapes: Sequence[torch.Size]) -> list[dict[str, Any]]:
    """This optimizer's state of each of these weights after one step, by torch's names."""
    optimizer, weights = _after_one_step(training, shapes)
    return [dict(optimizer.state[weight]) for weight in weights]


def whole_state(training: TrainingConfig, shapes: Sequence[torch.Size]) -> dict[str, Any]:
    """This optimizer's `state_dict()` after one step of weights of these shapes, all in one param group."""
    return _after_one_step(training, shapes)[0].state_dict()


def _after_one_step(training: TrainingConfig, shapes: Sequence[torch.Size]) -> tuple[Optimizer, list[nn.Parameter]]:
    weights = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    optimizer = make_optimizer(training, weights)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    return optimizer, weights


def has_uniform_state(training: TrainingConfig) -> bool:
    """Whether `state_of_one_weight` represents the state of every weight."""
    return optimizer_spec(training.optimizer).uniform_state
