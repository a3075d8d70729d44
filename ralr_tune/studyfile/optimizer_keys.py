"""The keys of [training] that belong to an optimizer: its name, its learning rate and its own options."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ralr_tune.studyfile.imports import check_import_path
from ralr_tune.studyfile.optimizers import OPTIMIZER_SPECS, is_imported, refusal_of
from ralr_tune.studyfile.values import (
    Choosable,
    Extended,
    Frozen,
    Searchable,
    SearchableOptions,
    one_of,
    problem,
    within,
)

OPTIMIZERS: dict[str, frozenset[str]] = {name: spec.options for name, spec in OPTIMIZER_SPECS.items()}
"""Options of each optimizer of the table, other than lr and weight_decay."""

OPTIMIZER_OPTIONS: frozenset[str] = frozenset().union(*OPTIMIZERS.values())

OF_IMPORTED = "optimizer_options"
"""The key with the options of an optimizer that is named by its import path."""


def _optimizer(value: str) -> str:
    if is_imported(value):
        return _import_path(value)
    if reason := refusal_of(value):
        raise problem(f"not supported: {reason}; allowed: {', '.join(OPTIMIZERS)}, or an import path")
    if value not in OPTIMIZERS:
        raise problem(f"not a supported optimizer; {one_of(OPTIMIZERS, value)}")
    return value


def _import_path(value: str) -> str:
    try:
        return check_import_path(value)
    except ValueError:
        raise problem("not an import path package.module:Class") from None


Optimizer = Annotated[str, AfterValidator(_optimizer)]
Rate = Annotated[float, within("lr")]
Beta = Annotated[float, within("betas")]
Betas = Annotated[tuple[Beta, Beta], Field(strict=False)]


class OptimizerOptions(Extended):
    """The optimizers' own options, by torch's names. None: not given."""

    added = frozenset({"beta2_decay", "d", "ns_steps", "adjust_lr_fn", "fallback_factor", OF_IMPORTED})

    momentum: Searchable[Annotated[float, within("momentum")]] | None = None
    dampening: Searchable[Annotated[float, within("dampening")]] | None = None
    nesterov: Choosable[bool] | None = None
    """Nesterov momentum (sgd, muon); sgd needs momentum above 0 and dampening 0."""
    betas: Choosable[Betas] | None = None
    eps: Searchable[Annotated[float, within("eps")]] | None = None
    amsgrad: Choosable[bool] | None = None
    """The AMSGrad variant (adam, adamw)."""
    rho: Searchable[Annotated[float, within("rho")]] | None = None
    lr_decay: Searchable[Annotated[float, within("lr_decay")]] | None = None
    initial_accumulator_value: Searchable[Annotated[float, within("initial_accumulator_value")]] | None = None
    lambd: Searchable[Annotated[float, within("lambd")]] | None = None
    alpha: Searchable[Annotated[float, within("alpha")]] | None = None
    t0: Searchable[Annotated[float, within("t0")]] | None = None
    momentum_decay: Searchable[Annotated[float, within("momentum_decay")]] | None = None
    decoupled_weight_decay: Choosable[bool] | None = None
    """Weight decay as in AdamW (nadam, radam)."""
    centered: Choosable[bool] | None = None
    """Normalize by the variance of the gradient (rmsprop)."""
    beta2_decay: Searchable[Annotated[float, within("beta2_decay")]] | None = None
    d: Searchable[Annotated[float, within("d")]] | None = None
    ns_steps: Searchable[Annotated[int, within("ns_steps")]] | None = None
    adjust_lr_fn: Choosable[Literal["original", "match_rms_adamw"]] | None = None
    """How a matrix's shape changes its rate (muon): times sqrt(max(1, rows / columns)), or times
    0.2 sqrt(max(rows, columns)), which makes steps as large as AdamW's."""
    fallback_factor: Searchable[Annotated[float, within("fallback_factor")]] | None = None
    optimizer_options: SearchableOptions | None = None
    """Arguments of an optimizer that is named by its import path; values may be searched."""


class _Rates(Frozen):
    lr: Searchable[Rate] | None = None
    weight_decay: Searchable[Annotated[float, within("weight_decay")]] | None = None


class OptimizerTable(OptimizerOptions, _Rates):
    """[training.optimizers.NAME]: what is used in place of the keys of [training] when this optimizer trains."""
