"""sgd, adam and adamw over the weights (K, P) of K slots, each with its own rate and numbers.

The formulas are those of torch.optim (2.14), where every number is a column (K, 1): a slot's step depends on no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ralr_tune.studyfile.optimizers import OPTIMIZER_SPECS
from ralr_tune.training.fused import Stack

if TYPE_CHECKING:
    from ralr_tune.studyfile.configuration import TrainingConfig
    from ralr_tune.training.train_state import TrainState

CLIP_EPSILON = 1e-6
"""As torch.nn.utils.clip_grad_norm_ has it."""


def kind(training: TrainingConfig) -> tuple[object, ...] | None:
    """What slots of one batch must agree in; None where there is no fused form."""
    offer = OPTIMIZER_SPECS[training.optimizer]
    if offer.slot_options is None or set(training.options) - offer.slot_options - offer.shared_options:
        return None
    nesterov, momentum = training.options.get("nesterov", False), bool(training.options.get("momentum", 0))
    return training.optimizer, nesterov, momentum, training.clip_norm is None


class FusedOptimizer:
    """Continues from where the states' own optimizers are, and hands back what has become of them.

    All that a step reads and writes stays in its place in memory, whatever is taken in.
    """

    def __init__(self, stack: Stack, states: Sequence[TrainState], trainings: Sequence[TrainingConfig]) -> None:
        """All trainings are of one `kind`."""
        self._stack, self._name = stack, trainings[0].optimizer
        options = states[0].optimizer_options()
        self._momentum, self._nesterov = bool(options.get("momentum")), bool(options.get("nesterov"))
        self._numbers: dict[str, Tensor] = {}
        """Columns (K, 1), by their names."""
        self._kept: dict[str, Tensor] = {}
        """What the optimizer keeps of each weight, (K, P), by its own names."""
        self.take(states, trainings)

    @torch.no_grad()
    def take(self, states: Sequence[TrainState], trainings: Sequence[TrainingConfig]) -> None:
        """Goes on where these optimizers are, as many and of the same `kind`."""
        held = [state.optimizer_states() for state in states]
        keeps = ("momentum_buffer",) if self._name == "sgd" else ("exp_avg", "exp_avg_sq")
        _put(self._kept, {name: torch.stack([_flat(each, name, self._stack) for each in held]) for name in keeps})
        rows = [
            _numbers(state.optimizer_options(), each, training.clip_norm)
            for state, each, training in zip(states, held, trainings, strict=True)
        ]
        _put(self._numbers, {name: self._column([row[name] for row in rows]) for name in rows[0]})

    @torch.no_grad()
    def step(self, rates: Tensor) -> None:
        """One step at learning rates (K, 1)."""
        gradient = self._stack.weights.grad
        assert gradient is not None
        if "clip" in self._numbers:
            norms = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (self._numbers["clip"] / (norms + CLIP_EPSILON)).clamp(max=1.0)
        if self._name == "adamw":
            self._stack.weights.mul_(1 - rates * self._numbers["weight_decay"])
        else:
            gradient = torch.addcmul(gradient, self._stack.weights, self._numbers["weight_decay"])
        self._sgd(gradient, rates) if self._name == "sgd" else self._adam(gradient, rates)
        self._stack.weights.grad = None

    def hand_back(self, states: Sequence[TrainState]) -> None:
        """Every state's optimizer is then where its own steps would have brought it."""
        for slot, state in enumerate(states):
            rows = {name: self._stack.per_weight(kept, slot) for name, kept in self._kept.items()}
            held: list[dict[str, Any]] = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
            for each in held:
                if self._name != "sgd":
                    each["step"] = self._numbers["step"][slot, 0].clone()
                elif not self._momentum:
                    each["momentum_buffer"] = None
            state.take_optimizer_states(held)

    def _sgd(self, gradient: Tensor, rates: Tensor) -> None:
        numbers = self._numbers
        if self._momentum:
            buffer = self._kept["momentum_buffer"].mul_(numbers["momentum"]).addcmul_(gradient, numbers["share"])
            torch.sub(1, numbers["dampening"], out=numbers["share"])
            gradient = torch.addcmul(gradient, buffer, numbers["momentum"]) if self._nesterov else buffer
        self._stack.weights.addcmul_(gradient, rates, value=-1)

    def _adam(self, gradient: Tensor, rates: Tensor) -> None:
        first, second, step = (self._numbers[name] for name in ("beta1", "beta2", "step"))
        mean, square = self._kept.values()
        step += 1
        mean.lerp_(gradient, (1 - first).expand_as(mean))
        square.mul_(second).addcmul_(gradient * gradient, 1 - second)
        spread = (square / (1 - second**step)).sqrt_().add_(self._numbers["eps"])
        self._stack.weights.sub_(mean / spread * (rates / (1 - first**step)))

    def _column(self, numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, device=self._stack.weights.device)[:, None]


def _numbers(
    options: Mapping[str, Any], states: Sequence[Mapping[str, Any]], clip_norm: float | None
) -> dict[str, float]:
    """Of one slot: what its optimizer was told, and how far it is."""
    found = {name: float(options[name]) for name in ("weight_decay", "momentum", "dampening", "eps") if name in options}
    if "betas" in options:
        found |= {"beta1": float(options["betas"][0]), "beta2": float(options["betas"][1])}
        found["step"] = float(states[0].get("step", 0.0))
    else:  # torch's first step has no dampening
        found["share"] = 1.0 - found["dampening"] * any(states)
    return found if clip_norm is None else found | {"clip": clip_norm}


def _put(held: dict[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, tensor in found.items():
        if name in held:
            held[name].copy_(tensor)
        else:
            held[name] = tensor


def _flat(state: Sequence[Mapping[str, Any]], name: str, stack: Stack) -> Tensor:
    """(P,): what an optimizer keeps of all weights under one name; zeros before the first step."""
    found = [each.get(name) for each in state]
    if any(one is None for one in found):
        return torch.zeros_like(stack.weights[0], requires_grad=False)
    return torch.cat([one.flatten() for one in found if one is not None])
