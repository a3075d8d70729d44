"""Optimizers as users write them, good and bad, for tests: named by `tests.training.own_optimizers:NAME`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

MODULE = __name__


class Lion(Optimizer):
    """Chen et al. 2023, algorithm 2. Counts its steps in the param group, as some packages do."""

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        if not 0 <= betas[0] < 1:
            raise ValueError(f"betas[0] = {betas[0]}")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "count": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["count"] += 1
            rate = group["lr"] * (1 + 0.1 / group["count"])
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group, rate)

    def _update(self, weight: Tensor, grad: Tensor, group: dict[str, Any], rate: float) -> None:
        first, second = group["betas"]
        mean = self.state[weight].setdefault("exp_avg", torch.zeros_like(weight))
        weight.mul_(1 - rate * group["weight_decay"])
        weight.add_(torch.lerp(grad, mean, first).sign_(), alpha=-rate)
        mean.lerp_(grad, 1 - second)


class WithoutDecay(Optimizer):
    """Gradient descent without a weight decay."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                weight.add_(weight.grad, alpha=-group["lr"])


class SAM(SGD):
    """The interface of the usual implementations."""

    def first_step(self) -> None: ...

    def second_step(self) -> None: ...


class NeedsClosure(WithoutDecay):
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is not None, "requires a closure"


class FixedRate(WithoutDecay):
    """Remembers the rate with which it was made."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr)
        self._rate = 0.1

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                weight.add_(weight.grad, alpha=-self._rate)


class Forgetful(WithoutDecay):
    """Counts its steps where no checkpoint has them."""

    _count = 0

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        self._count += 1
        for group in self.param_groups:
            group["lr"] /= self._count
        super().step()


class Pickled(WithoutDecay):
    """Keeps an object that only pickled code can restore."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr)
        for group in self.param_groups:
            group["scale"] = Pickled._scale

    @staticmethod
    def _scale(value: float) -> float:
        return value


class OnlyMatrices(WithoutDecay):
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if any(weight.dim() != 2 for group in self.param_groups for weight in group["params"]):
            raise RuntimeError("expected a matrix")
        super().step()


class Explodes(WithoutDecay):
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                weight.div_(0.0)


def a_function(params: Any, lr: float) -> Optimizer:
    return SGD(params, lr)


class NoOptimizer:
    pass
