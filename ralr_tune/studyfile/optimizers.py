"""The supported optimizers: one table for the study file, the training of one trial and fused training.

Listed here so that a study file can be checked without importing torch; a test compares the table with torch. REFUSED
has the others, each with the reason. Any other optimizer is named by its import path, `package.module:Class`.
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
    uniform_state: bool = True
    """Whether it keeps the same values for every weight: numbers, and tensors of the weight's shape."""
    imported: bool = False
    """Whether it is the user's code: its class decides which options there are."""


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
        # lr is a ceiling: step t uses min(lr, t ** -0.5), relative to the size of the weight. Rates above t ** -0.5,
        # also amplified ones, change only the weight decay (torch/optim/_adafactor.py, as in Shazeer and Stern 2018,
        # section 8). Its eps, a pair of which one may be None, is left at torch's.
        "adafactor": OptimizerSpec("Adafactor", frozenset({"beta2_decay", "d"}), (1e-4, 1e-1), uniform_state=False),
        "adagrad": _spec("Adagrad", _PLAIN_RATES, "lr_decay", "initial_accumulator_value", "eps"),
        "adam": _adam("Adam"),
        "adamax": _spec("Adamax", _ADAPTIVE_RATES, "betas", "eps"),
        "adamw": _adam("AdamW"),
        "asgd": _spec("ASGD", _PLAIN_RATES, "lambd", "alpha", "t0"),
        # torch's Muon for hidden matrices, AdamW for all other weights (training.muon)
        "muon": OptimizerSpec(
            "Muon",
            frozenset({"momentum", "nesterov", "eps", "ns_steps", "adjust_lr_fn", "betas", "fallback_factor"}),
            (1e-4, 0.3),
            uniform_state=False,
        ),
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


REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "lbfgs": "it needs a closure that computes the loss several times in each step",
        "rprop": "it keeps a step size for each weight and reads lr only before the first step, so amplifying lr has "
        "no effect",
        "sparseadam": "it takes only sparse gradients, and the networks here have none",
        **dict.fromkeys(
            ("sam", "asam", "gsam"),
            "it computes two gradients in each step, which is the extra cost that RALR must do without; train with it "
            'in your own code (task.kind = "function" or "command")',
        ),
    }
)
"""Known optimizers that are not supported, with the reason; in lower case and without "_" and "-"."""

_IMPORTED = OptimizerSpec("", frozenset(), (_ADAPTIVE_RATES[0], _PLAIN_RATES[1]), uniform_state=False, imported=True)


def optimizer_spec(name: str) -> OptimizerSpec:
    """What is known of an optimizer of the table or of one that an import path names. Raises KeyError for any other."""
    return _IMPORTED if is_imported(name) else OPTIMIZER_SPECS[name]


def is_imported(name: str) -> bool:
    """Whether the name of an optimizer is an import path."""
    return ":" in name


def refusal_of(name: str) -> str | None:
    """Why a known optimizer is not supported; None for any other name."""
    return REFUSED.get(name.lower().replace("_", "").replace("-", ""))


DECOUPLED = frozenset({"adamw", "adafactor", "muon"})
"""Optimizers that shrink the weights by rate * weight_decay and leave the gradient as it is (arXiv 1711.05101)."""


def is_decoupled(optimizer: str, options: Mapping[str, Any]) -> bool:
    """Whether the weight decay is decoupled from the gradient; `options`: the optimizer's own."""
    return optimizer in DECOUPLED or bool(options.get("decoupled_weight_decay"))
