"""Any optimizer of torch.optim by its lower-case name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ralr_tune.errors import UsageError

if TYPE_CHECKING:
    from ralr_tune.studyfile.configuration import TrainingConfig

NOT_OFFERED = frozenset({"optimizer", "lbfgs", "sparseadam"})
"""The base class; a closure in every step; sparse gradients alone."""

FUSED = frozenset({"sgd", "adam", "adamw"})
"""Those that step all weights in one kernel on CPU and CUDA alike; on a CPU a third of the time of torch's choice."""


def optimizers() -> Mapping[str, type[Optimizer]]:
    """Classes by lower-case name."""
    found = {name.lower(): thing for name, thing in vars(torch.optim).items() if inspect.isclass(thing)}
    return {name: thing for name, thing in found.items() if issubclass(thing, Optimizer) and name not in NOT_OFFERED}


def make_optimizer(
    training: TrainingConfig, parameters: Iterable[nn.Parameter], rate: Tensor | None = None
) -> Optimizer:
    """The optimizer that `training` describes. Raises UsageError on an unknown name or option, or an impossible
    value.

    `rate`: a learning rate, (), on the device, for an optimizer of FUSED whose steps are recorded as a CUDA graph.
    """
    known = optimizers()
    if training.optimizer not in known:
        near = difflib.get_close_matches(training.optimizer, known, n=1, cutoff=0.4)
        raise UsageError(
            f"training.optimizer = {training.optimizer!r}{f'; did you mean {near[0]!r}?' if near else ''}"
            f"; allowed: {', '.join(sorted(known))}"
        )
    chosen = known[training.optimizer]
    allowed = inspect.signature(chosen).parameters
    options = {"lr": training.lr, **optimizer_options(training)}
    try:
        return chosen(parameters, **options | _on_device(rate, allowed))
    except (TypeError, ValueError) as error:
        names = ", ".join(name for name in allowed if name not in ("params", "lr"))
        raise UsageError(
            f"training.optimizer = {training.optimizer!r} with {options}: {error}; its options: {names}"
        ) from error


def optimizer_options(training: TrainingConfig) -> dict[str, Any]:
    """Keyword arguments of the torch.optim class that `training` asks for, the learning rate aside."""
    options = dict(training.options)
    if training.optimizer in FUSED:
        options["fused"] = True
    allowed = inspect.signature(optimizers()[training.optimizer]).parameters
    if training.weight_decay or "weight_decay" in allowed:  # rprop has none: zero of it is no mistake
        options["weight_decay"] = training.weight_decay
    return options


def _on_device(rate: Tensor | None, allowed: Mapping[str, object]) -> dict[str, Any]:
    """Options of an optimizer whose steps are recorded."""
    if rate is None:
        return {}
    return {"lr": rate, **({"capturable": True} if "capturable" in allowed else {})}


def state_of_one_weight(training: TrainingConfig) -> Mapping[str, Any]:
    """What this optimizer keeps of a weight of shape (2,), by its own names, after a step."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = make_optimizer(training, [weight])
    weight.grad = torch.zeros(2)
    optimizer.step()
    return dict(optimizer.state[weight])
