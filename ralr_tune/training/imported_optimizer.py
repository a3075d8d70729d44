"""Optimizers of other packages and of the user, by import path; each is tried before anything is trained with it.

Class(parameters, lr=..., **options)  ->  torch.optim.Optimizer; with weight_decay=..., if it has that argument
"""

from __future__ import annotations

import copy
import importlib
import inspect
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ralr_tune.errors import UsageError

if TYPE_CHECKING:
    from ralr_tune.studyfile.configuration import TrainingConfig

CALLED = "it is called as Class(parameters, lr=..., **optimizer_options) and must be a torch.optim.Optimizer"
TWO_GRADIENTS = (
    "it computes two gradients in each step, which is the extra cost that RALR must do without; train with it in your "
    'own code (task.kind = "function" or "command")'
)
OWN_CODE = 'train with it in your own code (task.kind = "function" or "command")'

Make = Callable[[Iterable[nn.Parameter]], Optimizer]


def load_class(name: str) -> type[Optimizer]:
    """The class that an import path names. Raises UsageError if there is none or if it is no optimizer."""
    module_name, _, path = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # an import runs the user's code, which may raise anything
        raise UsageError(f"{_where(name)}: importing {module_name!r} failed: {_reason(error)}") from error
    try:
        found = reduce(getattr, path.split("."), module)
    except AttributeError as error:
        raise UsageError(f"{_where(name)}: {error}") from error
    if not inspect.isclass(found) or not issubclass(found, Optimizer):
        kind = "a class that is no torch.optim.Optimizer" if inspect.isclass(found) else type(found).__name__
        raise UsageError(f"{_where(name)}: is {kind}; {CALLED}")
    if hasattr(found, "first_step") and hasattr(found, "second_step"):
        raise UsageError(f"{_where(name)}: {TWO_GRADIENTS}")
    return found


def arguments_of(training: TrainingConfig, found: type[Optimizer]) -> dict[str, Any]:
    """The options of an imported optimizer. Raises UsageError for a weight decay that it does not have."""
    accepted = inspect.signature(found).parameters
    if "weight_decay" in accepted or any(each.kind is each.VAR_KEYWORD for each in accepted.values()):
        return {**training.options, "weight_decay": training.weight_decay}
    if training.weight_decay or training.weight_decay_schedule != "constant":
        raise UsageError(
            f"training.weight_decay = {training.weight_decay:g}: {training.optimizer} has none; leave it out"
        )
    return dict(training.options)


def check(name: str, make: Make, rate: float) -> None:
    """Trains a matrix and a vector for a few steps with the optimizer that `make` creates, at `rate` and others.

    Raises UsageError if trials could not train with it, amplify its rates or resume.
    """
    with torch.random.fork_rng(devices=[]):
        _check(name, make, rate)


def _check(name: str, make: Make, rate: float) -> None:
    try:
        weights, _ = _stepped(make, [rate] * 3)
    except UsageError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UsageError(f"{_where(name)}: {_failure(optimizer_of(make), error)}") from error
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise UsageError(f"{_where(name)}: its steps are not finite at lr = {rate:g}")
    if _equal(weights, _stepped(make, [rate / 1000] * 3)[0]):
        raise UsageError(
            f"{_where(name)}: it does not read lr from its param groups, so neither the schedule nor amplification has "
            f"any effect; {OWN_CODE}"
        )
    _check_resumed(name, make, rate, weights)


def optimizer_of(make: Make) -> Optimizer | None:
    """A new optimizer; None if none can be made."""
    try:
        return make(_weights())
    except Exception:  # the user's code may raise anything
        return None


def _check_resumed(name: str, make: Make, rate: float, uninterrupted: Sequence[Tensor]) -> None:
    """Two steps, a saved and loaded state, and a third step must equal three steps."""
    weights, optimizer = _stepped(make, [rate] * 2)
    try:
        state = _saved_and_loaded(optimizer.state_dict())
    except Exception as error:  # torch documents no class of errors for this
        raise UsageError(
            f"{_where(name)}: its state cannot be saved without pickled code ({_reason(error)}), so no trial could "
            f"resume; allowed in state_dict(): tensors, numbers, strings, lists, tuples and dicts"
        ) from error
    other = make(weights)
    other.load_state_dict(state)
    _take_step(other, weights, 2, rate)
    if not _equal(weights, uninterrupted):
        raise UsageError(
            f"{_where(name)}: a run that is interrupted and resumed differs from an uninterrupted one, because it "
            "keeps something outside of state_dict()"
        )


def _weights() -> list[nn.Parameter]:
    return [nn.Parameter(torch.linspace(-1, 1, 12).reshape(4, 3)), nn.Parameter(torch.linspace(0.5, 1.5, 4))]


def _stepped(make: Make, rates: Sequence[float]) -> tuple[list[nn.Parameter], Optimizer]:
    """The weights after one step at each rate, and their optimizer, which was created with the first one."""
    weights = _weights()
    optimizer = make(weights)
    for index, rate in enumerate(rates):
        _take_step(optimizer, weights, index, rate)
    return weights, optimizer


def _take_step(optimizer: Optimizer, weights: Sequence[nn.Parameter], index: int, rate: float) -> None:
    """As TrainState does: the rate goes into every param group, and `step` gets no closure."""
    torch.manual_seed(index)  # as the epochs of a trial, so an optimizer may draw from torch's generator
    for group in optimizer.param_groups:
        group["lr"] = rate
    for weight in weights:
        weight.grad = torch.cos(weight.detach() * (index + 1))
    optimizer.step()


def _saved_and_loaded(state: Mapping[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(copy.copy(state), buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def _equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def _failure(optimizer: Optimizer | None, error: Exception) -> str:
    """Why its first steps failed: it may have needed a closure."""
    if optimizer is not None and _needs_closure(optimizer, error):
        return f"its step needs a closure that computes the loss once more; {TWO_GRADIENTS}"
    return f"its steps fail without a closure, on a matrix and a vector: {_reason(error)}"


def _needs_closure(optimizer: Optimizer, error: Exception) -> bool:
    closure = next(iter(inspect.signature(optimizer.step).parameters.values()), None)
    required = closure is not None and closure.default is inspect.Parameter.empty
    return required or "closure" in str(error).lower() or "'NoneType' object is not callable" in str(error)


def _where(name: str) -> str:
    return f"training.optimizer = {name!r}"


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
