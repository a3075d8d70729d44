"""Muon for the hidden matrices of a network and AdamW for all its other weights, as one optimizer.

Muon (Jordan 2024) makes the step of a weight matrix orthogonal, so that all its directions get the same rate. It is
meant for hidden layers: the first and the last layer, biases and normalisations train with AdamW, as its author
advises. A convolution is a matrix of shape (outputs, inputs * height * width), as in his CIFAR-10 networks; torch's own
Muon refuses it. The formulas of both are torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim._muon import muon
from torch.optim.adamw import adamw

NS_COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of the Newton-Schulz iteration: Jordan's, and torch's defaults."""


class MuonWithAdamW(Optimizer):
    """One state and one list of param groups: both parts follow the learning rate of their group.

    Defaults are those of the author's implementation (`SingleDeviceMuonWithAuxAdam`), whose rates are 0.02 for Muon and
    3e-4 for Adam; `eps` is Muon's (torch's default), AdamW has torch's 1e-8.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        fallback_factor: float = 0.015,
        order: Iterable[nn.Parameter] | None = None,
    ) -> None:
        """`fallback_factor`: AdamW's rate as a multiple of `lr`. Each given group is split into two. `order`: all
        weights in the order of the network; None: that of the groups.

        Raises ValueError if no weight is a hidden matrix.
        """
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "betas": betas,
            "fallback_factor": fallback_factor,
        }
        given = list(params)
        groups = given if isinstance(given[0], dict) else [{"params": given}]
        groups = [{**group, "params": list(group["params"])} for group in groups]
        hidden = hidden_matrices(order or [weight for group in groups for weight in group["params"]])
        if not hidden:
            raise ValueError("no weight is a hidden matrix: the first and the last layer do not count")
        super().__init__([part for group in groups for part in _parts(group, hidden)], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                (self._muon if group["is_hidden"] else self._adamw)(weights, group)
        return loss

    def _muon(self, weights: list[nn.Parameter], group: Mapping[str, Any]) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        muon(
            [as_matrix(weight.detach(), weight) for weight in weights],
            [as_matrix(weight.grad, weight) for weight in weights if weight.grad is not None],
            [as_matrix(self.state[weight]["momentum_buffer"], weight) for weight in weights],
            ns_coefficients=NS_COEFFICIENTS,
            has_complex=False,
            **{name: group[name] for name in ("lr", "weight_decay", "momentum", "nesterov", "ns_steps", "eps")},
            adjust_lr_fn=group["adjust_lr_fn"],
        )

    def _adamw(self, weights: list[nn.Parameter], group: Mapping[str, Any]) -> None:
        for weight in weights:
            if not self.state[weight]:
                moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
                self.state[weight].update(step=torch.zeros((), device=weight.device), **moments)
        states = [self.state[weight] for weight in weights]
        adamw(
            weights,  # type: ignore[arg-type]
            [weight.grad for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"] * group["fallback_factor"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def hidden_matrices(weights: Iterable[nn.Parameter]) -> set[nn.Parameter]:
    """The weights with two or more dimensions, without the first and the last of them in the order of the network.

    (1, ...) with three or more dimensions is no layer but a class token or the embedding of positions.
    """
    matrices = [weight for weight in weights if weight.dim() == 2 or (weight.dim() > 2 and weight.shape[0] > 1)]
    return set(matrices[1:-1])


def as_matrix(values: Tensor, weight: Tensor) -> Tensor:
    """Values of the shape of `weight` as a matrix (rows, rest): a view, if they lie in memory as the weight does.

    Columns are in the order of the memory, which is another one with channels last. That changes nothing but rounding:
    Muon's step of a matrix with permuted columns is its step, permuted.
    """
    inner = sorted(range(1, weight.dim()), key=weight.stride, reverse=True)
    return values.permute(0, *inner).reshape(len(values), -1)


def _parts(group: dict[str, Any], hidden: set[nn.Parameter]) -> list[dict[str, Any]]:
    """The hidden matrices of a group and its other weights, each part with the group's options."""
    parts = {
        is_hidden: [each for each in group["params"] if (each in hidden) is is_hidden] for is_hidden in (True, False)
    }
    return [{**group, "params": part, "is_hidden": is_hidden} for is_hidden, part in parts.items() if part]
