"""sgd, adam and adamw over the weights (K, P) of K slots, each with its own rate and numbers.

The formulas are those of torch.optim (2.14), where every number is a column (K, 1): a slot's step depends on no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ralr_tune.training.fused import Stack

if TYPE_CHECKING:
    from ralr_tune.spec.configuration import TrainingConfig
    from ralr_tune.training.learner import Learner

NUMBERS: Mapping[str, frozenset[str]] = {
    "sgd": frozenset({"momentum", "dampening"}),
    "adam": frozenset({"betas", "eps"}),
    "adamw": frozenset({"betas", "eps"}),
}
"""By optimizer that has a fused form: options that may differ between slots."""

SWITCHES = frozenset({"nesterov"})
"""Options that slots must agree in; one that stands in neither has no fused form."""

CLIP_EPSILON = 1e-6
"""As torch.nn.utils.clip_grad_norm_ has it."""


def kind(training: TrainingConfig) -> tuple[object, ...] | None:
    """What slots of one batch must agree in; None where there is no fused form."""
    numbers = NUMBERS.get(training.optimizer)
    if numbers is None or set(training.options) - numbers - SWITCHES:
        return None
    nesterov, momentum = training.options.get("nesterov", False), bool(training.options.get("momentum", 0))
    return training.optimizer, nesterov, momentum, training.clip_norm is None


class FusedOptimizer:
    """Takes up where the learners' own optimizers are, and hands back what it has become of them."""

    def __init__(self, stack: Stack, learners: Sequence[Learner], trainings: Sequence[TrainingConfig]) -> None:
        """All trainings are of one `kind`."""
        self._stack, self._name = stack, trainings[0].optimizer
        self._groups = [learner.optimizer_options() for learner in learners]
        self._decay = self._column([group["weight_decay"] for group in self._groups])
        clips = [training.clip_norm for training in trainings]
        self._clip = None if clips[0] is None else self._column(clips)
        self._keeps = ("momentum_buffer",) if self._name == "sgd" else ("exp_avg", "exp_avg_sq")
        states = [learner.states() for learner in learners]
        self._kept = {name: torch.stack([_flat(state, name, stack) for state in states]) for name in self._keeps}
        fresh = self._column([not any(state) for state in states])
        self._steps = self._column([state[0].get("step", 0.0) for state in states])
        if self._name == "sgd":
            self._momentum = self._option("momentum")
            self._share = 1 - self._option("dampening") * (1 - fresh)  # torch's first step has no dampening
        else:
            self._betas = tuple(self._column([group["betas"][place] for group in self._groups]) for place in (0, 1))
            self._eps = self._option("eps")

    @torch.no_grad()
    def step(self, rates: Tensor) -> None:
        """One step at learning rates (K, 1)."""
        gradient = self._stack.weights.grad
        assert gradient is not None
        if self._clip is not None:
            norms = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (self._clip / (norms + CLIP_EPSILON)).clamp(max=1.0)
        if self._name == "adamw":
            self._stack.weights.mul_(1 - rates * self._decay)
        else:
            gradient = torch.addcmul(gradient, self._stack.weights, self._decay)
        self._sgd(gradient, rates) if self._name == "sgd" else self._adam(gradient, rates)
        self._stack.weights.grad = None

    def hand_back(self, learners: Sequence[Learner]) -> None:
        """Every learner's optimizer is then where its own steps would have brought it."""
        for slot, learner in enumerate(learners):
            rows = {name: self._stack.per_weight(kept, slot) for name, kept in self._kept.items()}
            states: list[dict[str, Any]] = [
                dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)
            ]
            for state in states:
                if self._name != "sgd":
                    state["step"] = self._steps[slot, 0].clone()
                elif not self._groups[slot]["momentum"]:
                    state["momentum_buffer"] = None
            learner.take_states(states)

    def _sgd(self, gradient: Tensor, rates: Tensor) -> None:
        if self._groups[0]["momentum"]:
            buffer = self._kept["momentum_buffer"].mul_(self._momentum).addcmul_(gradient, self._share)
            self._share = 1 - self._option("dampening")
            gradient = torch.addcmul(gradient, buffer, self._momentum) if self._groups[0]["nesterov"] else buffer
        self._stack.weights.addcmul_(gradient, rates, value=-1)

    def _adam(self, gradient: Tensor, rates: Tensor) -> None:
        (first, second), (mean, square) = self._betas, self._kept.values()
        self._steps += 1
        mean.lerp_(gradient, (1 - first).expand_as(mean))
        square.mul_(second).addcmul_(gradient * gradient, 1 - second)
        spread = (square / (1 - second**self._steps)).sqrt_().add_(self._eps)
        self._stack.weights.sub_(mean / spread * (rates / (1 - first**self._steps)))

    def _option(self, name: str) -> Tensor:
        return self._column([group[name] for group in self._groups])

    def _column(self, numbers: Sequence[Any]) -> Tensor:
        return torch.tensor([float(number) for number in numbers], device=self._stack.weights.device)[:, None]


def _flat(state: Sequence[Mapping[str, Any]], name: str, stack: Stack) -> Tensor:
    """(P,): what an optimizer keeps of all weights under one name; zeros before the first step."""
    found = [each.get(name) for each in state]
    if any(one is None for one in found):
        return torch.zeros_like(stack.weights[0], requires_grad=False)
    return torch.cat([one.flatten() for one in found if one is not None])
