"""How `RandomAmplifyLR` uses its base scheduler: interfaces differ between torch and timm, and within torch."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, ReduceLROnPlateau

from ralr_tune.schedules.checks import refusal
from ralr_tune.schedules.wrapper.rates import Amplifications, AmplifiedRates, Groups, Rate, copies, levels, write


def check_base(optimizer: Optimizer, base: Any) -> None:
    """ValueError unless `base` is a torch or timm scheduler of `optimizer`, or of one that wraps it or is inside it."""
    own = getattr(base, "optimizer", None)
    known = isinstance(base, LRScheduler) or is_timm_style(base)
    if not known or not isinstance(own, Optimizer) or levels(own)[-1] is not levels(optimizer)[-1]:
        # The result of accelerate's prepare() is not a scheduler: it steps one, and would step this wrapper.
        allowed = "a torch or timm scheduler of this optimizer, not yet prepared by accelerate, or None"
        raise refusal("base_scheduler", base, allowed)


def is_timm_style(base: Any) -> bool:
    """Whether the caller counts, as in timm: each call steps to a given epoch or update of the weights."""
    return hasattr(base, "t_in_epochs") and hasattr(base, "step_update")


def position(base: Any) -> int:
    """The current step of `base`; 0 for timm's, which do not store it."""
    if hasattr(base, "last_epoch"):
        return max(int(base.last_epoch), 0)
    members = vars(base).get("_schedulers")  # of a ChainedScheduler, which has no count
    return position(members[0]) if members else 0


def needs_metric(base: Any) -> bool:
    """Whether `step` of `base` needs a metric."""
    inner = vars(base).get("base_scheduler")
    return isinstance(base, ReduceLROnPlateau) or (inner is not None and needs_metric(inner))


def take_over(earlier: Amplifications, kept: list[AmplifiedRates], base: Any) -> None:
    """Removes all wrappers but `kept`, which `base` contains, and restores the base rates.

    `base` may be newer than these wrappers, so that its constructor read an amplified rate. Then the rates that it
    wrote are computed again from the base rates. Rates that other code wrote count as amplified.
    """
    groups = base.optimizer.param_groups
    written = copies(groups)
    if not earlier or kept or written == (amplified := earlier.amplified(groups)):
        earlier.keep_only(kept, groups)
        return
    initial = _initial_rates(base, groups, amplified)
    absolute = initial is None and (is_timm_style(base) or getattr(base, "_last_lr", None) == written)
    write(groups, amplified if initial == written or absolute else written)
    earlier.keep_only(kept, groups)
    if absolute:
        write(groups, written)
    elif initial == written:
        _initial_rates(base, groups, copies(groups))


def computed_lr(base: Any, *, stepping: bool, making: bool = False) -> list[Rate]:
    """The result of `base.get_lr()` as if called from its own step, or with `making` from its constructor.

    Raises NotImplementedError if it has none.
    """
    if getattr(type(base), "get_lr", LRScheduler.get_lr) is LRScheduler.get_lr:
        raise NotImplementedError(f"{type(base).__name__} has no get_lr(); get_last_lr() returns the current rates")
    base._get_lr_called_within_step, base._is_initial = (
        stepping,
        making,
    )  # attributes of torch; without the first, it warns
    try:
        return list(base.get_lr())
    finally:
        base._get_lr_called_within_step, base._is_initial = False, False


def base_state(base: Any) -> Any:
    """Its state, with NumPy's numbers (a gamma of linspace) as Python's: torch.load(weights_only=True) rejects them."""
    return _plain(base.state_dict())


def load_base(base: Any, state: Any) -> None:
    """Loads `state`. Raises ValueError if it does not fit, and then changes nothing."""
    name, before = type(base).__name__, copy.deepcopy(base.state_dict())
    if not isinstance(state, Mapping) or ("_schedulers" in state) != ("_schedulers" in before):
        found = f"keys {', '.join(map(str, state))}" if isinstance(state, Mapping) else state
        raise refusal("state_dict['base_scheduler']", found, f"a state of {name}")
    try:
        base.load_state_dict(
            copy.deepcopy(state)
        )  # a copy, because torch's CyclicLR removes keys from the state that it loads
    except Exception as error:
        base.load_state_dict(before)
        raise refusal(
            "state_dict['base_scheduler']", f"{type(error).__name__}: {error}", f"a state of {name}"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (dict, Counter):
        return type(value)({_plain(key): _plain(each) for key, each in value.items()})
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


def _initial_rates(base: Any, groups: Groups, rates: list[Rate]) -> list[Rate] | None:
    """Writes the rates that the constructor of `base` writes if `groups` hold `rates`; None if `get_lr` is missing."""
    write(groups, rates)
    try:
        for member in base._schedulers if isinstance(base, ChainedScheduler) else [base]:
            write(groups, computed_lr(member, stepping=True, making=True))
    except NotImplementedError:
        return None
    return copies(groups)
