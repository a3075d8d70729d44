"""sgd, adam and adamw over the weights (K, P) of K slots, each with its own learning rate and hyperparameters.

The formulas are those of torch.optim (2.14) with columns (K, 1) instead of numbers: slots do not affect each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ralr_tune.studyfile.optimizers import optimizer_spec
from ralr_tune.training.fused import Stack

if TYPE_CHECKING:
    from ralr_tune.studyfile.configuration import TrainingConfig
    from ralr_tune.training.train_state import TrainState

CLIP_EPSILON = 1e-6
"""The value in torch.nn.utils.clip_grad_norm_."""


def fusion_key(training: TrainingConfig) -> tuple[object, ...] | None:
    """What all slots must have in common; None if the optimizer has no fused form."""
    offer = optimizer_spec(training.optimizer)
    if offer.slot_options is None or set(training.options) - offer.slot_options - offer.shared_options:
        return None
    nesterov, momentum = training.options.get("nesterov", False), bool(training.options.get("momentum", 0))
    return training.optimizer, nesterov, momentum, training.clip_norm is None


class FusedOptimizer:
    """Copies in the states of the slots' own optimizers, continues from there, and copies them back.

    All tensors that a step reads and writes keep their addresses.
    """

    def __init__(self, stack: Stack, states: Sequence[TrainState], trainings: Sequence[TrainingConfig]) -> None:
        """All trainings have the same `fusion_key`."""
        self._stack, self._name = stack, trainings[0].optimizer
        options = states[0].optimizer_options()
        self._momentum, self._nesterov = bool(options.get("momentum")), bool(options.get("nesterov"))
        self._numbers: dict[str, Tensor] = {}
        """Hyperparameters as columns (K, 1), by name."""
        self._states: dict[str, Tensor] = {}
        """The optimizer's states of all weights, (K, P), by torch's names."""
        self.copy_from(states, trainings)

    @torch.no_grad()
    def copy_from(self, states: Sequence[TrainState], trainings: Sequence[TrainingConfig]) -> None:
        """Continues from these optimizers, of the same number and `fusion_key`."""
        held = [state.optimizer_states() for state in states]
        names = ("momentum_buffer",) if self._name == "sgd" else ("exp_avg", "exp_avg_sq")
        _update(
            self._states, {name: torch.stack([_flat_state(each, name, self._stack) for each in held]) for name in names}
        )
        rows = [
            _numbers(state.optimizer_options(), each, training.clip_norm)
            for state, each, training in zip(states, held, trainings, strict=True)
        ]
        _update(self._numbers, {name: self._column([row[name] for row in rows]) for name in rows[0]})

    def set_weight_decays(self, decays: Tensor) -> None:
        """The weight decays of the next steps, (K, 1)."""
        self._numbers["weight_decay"].copy_(decays)

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

    def copy_to(self, states: Sequence[TrainState]) -> None:
        """Copies the states back: each optimizer is then as if it had made the steps itself."""
        for slot, state in enumerate(states):
            rows = {name: self._stack.per_weight(kept, slot) for name, kept in self._states.items()}
            held: list[dict[str, Any]] = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
            for each in held:
                if self._name != "sgd":
                    each["step"] = self._numbers["step"][slot, 0].clone()
                elif not self._momentum:
                    each["momentum_buffer"] = None
            state.load_optimizer_states(held)

    def _sgd(self, gradient: Tensor, rates: Tensor) -> None:
        numbers = self._numbers
        if self._momentum:
            buffer = self._states["momentum_buffer"].mul_(numbers["momentum"]).addcmul_(gradient, numbers["share"])
            torch.sub(1, numbers["dampening"], out=numbers["share"])
            gradient = torch.addcmul(gradient, buffer, numbers["momentum"]) if self._nesterov else buffer
        self._stack.weights.addcmul_(gradient, rates, value=-1)

    def _adam(self, gradient: Tensor, rates: Tensor) -> None:
        first, second, step = (self._numbers[name] for name in ("beta1", "beta2", "step"))
        mean, square = self._states.values()
        step += 1
        mean.lerp_(gradient, (1 - first).expand_as(mean))
        square.mul_(second).addcmul_(gradient * gradient, 1 - second)
        denominator = (square / (1 - second**step)).sqrt_().add_(self._numbers["eps"])
        self._stack.weights.sub_(mean / denominator * (rates / (1 - first**step)))

    def _column(self, numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, device=self._stack.weights.device)[:, None]


def _numbers(
    options: Mapping[str, Any], states: Sequence[Mapping[str, Any]], clip_norm: float | None
) -> dict[str, float]:
    """The hyperparameters and the step count of one slot's optimizer."""
    found = {name: float(options[name]) for name in ("weight_decay", "momentum", "dampening", "eps") if name in options}
    if "betas" in options:
        found |= {"beta1": float(options["betas"][0]), "beta2": float(options["betas"][1])}
        found["step"] = float(states[0].get("step", 0.0))
    else:  # torch's first step is without dampening
        found["share"] = 1.0 - found["dampening"] * any(states)
    return found if clip_norm is None else found | {"clip": clip_norm}


def _update(held: dict[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, tensor in found.items():
        if name in held:
            held[name].copy_(tensor)
        else:
            held[name] = tensor


def _flat_state(state: Sequence[Mapping[str, Any]], name: str, stack: Stack) -> Tensor:
    """An optimizer's states of all weights under one name, (P,); zeros before the first step."""
    found = [each.get(name) for each in state]
    if any(one is None for one in found):
        return torch.zeros_like(stack.weights[0], requires_grad=False)
    return torch.cat([one.flatten() for one in found if one is not None])
