"""The supported optimizers: one table for the study file, the training of one trial and fused training.

Listed here so that a study file can be checked without importing torch; a test compares the table with torch. Left out
on purpose: optimizers that need a closure (lbfgs), sparse gradients (sparseadam) or only matrices (muon), and those
without a usual learning rate to amplify (rprop: a step size per weight; adafactor: relative steps).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class OptimizerSpec:
    """What is supported of one optimizer of torch.optim."""

    torch_name: str
    """Its class in torch.optim."""
    options: frozenset[str]
    """Its options other than lr and weight_decay, by torch's names."""
    usual_rates: tuple[float, float]
    """Learning rates that networks are usually trained with (our choice; torch's default lies within)."""
    one_kernel: bool = False
    """Whether torch has a fused implementation that updates all weights in one kernel, on CPU and CUDA, and reads the
    learning rate from the device, so that steps can be recorded. On a CPU it takes a third of the time of torch's
    default."""
    slot_options: frozenset[str] | None = None
    """Options that may differ between the slots of a fused network; None: not fusable (training.fused_optimizer)."""
    shared_options: frozenset[str] = frozenset()
    """Options that must be equal in all slots. A trial with any other option trains separately."""


_PLAIN_RATES = (1e-4, 1.0)
_ADAPTIVE_RATES = (1e-5, 3e-2)
"""Of optimizers that divide each weight's gradient by its running size."""


def _spec(torch_name: str, usual_rates: tuple[float, float], *options: str) -> OptimizerSpec:
    return OptimizerSpec(torch_name, frozenset(options), usual_rates)


def _adam(torch_name: str) -> OptimizerSpec:
    slot_options = frozenset({"betas", "eps"})
    return OptimizerSpec(
        torch_name, slot_options | {"amsgrad"}, _ADAPTIVE_RATES, one_kernel=True, slot_options=slot_options
    )


OPTIMIZER_SPECS: Mapping[str, OptimizerSpec] = MappingProxyType(
    {
        "adadelta": _spec("Adadelta", (1e-2, 10.0), "rho", "eps"),
        "adagrad": _spec("Adagrad", _PLAIN_RATES, "lr_decay", "initial_accumulator_value", "eps"),
        "adam": _adam("Adam"),
        "adamax": _spec("Adamax", _ADAPTIVE_RATES, "betas", "eps"),
        "adamw": _adam("AdamW"),
        "asgd": _spec("ASGD", _PLAIN_RATES, "lambd", "alpha", "t0"),
        "nadam": _spec("NAdam", _ADAPTIVE_RATES, "betas", "eps", "momentum_decay", "decoupled_weight_decay"),
        "radam": _spec("RAdam", _ADAPTIVE_RATES, "betas", "eps", "decoupled_weight_decay"),
        "rmsprop": _spec("RMSprop", _ADAPTIVE_RATES, "alpha", "eps", "momentum", "centered"),
        "sgd": OptimizerSpec(
            "SGD",
            frozenset({"momentum", "dampening", "nesterov"}),
            _PLAIN_RATES,
            one_kernel=True,
            slot_options=frozenset({"momentum", "dampening"}),
            shared_options=frozenset({"nesterov"}),
        ),
    }
)
"""By the name in a study file."""

DECOUPLED = frozenset({"adamw", "adafactor", "muon"})
"""Optimizers that shrink the weights by rate * weight_decay and leave the gradient as it is (arXiv 1711.05101)."""


def is_decoupled(optimizer: str, options: Mapping[str, Any]) -> bool:
    """Whether the weight decay is decoupled from the gradient; `options`: the optimizer's own."""
    return optimizer in DECOUPLED or bool(options.get("decoupled_weight_decay"))
