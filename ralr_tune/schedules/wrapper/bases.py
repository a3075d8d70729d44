"""What `RandomAmplifyLR` asks of the scheduler that it is around: torch's and timm's differ, and so do torch's own."""

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
    """Refuses all but a scheduler of torch or timm whose optimizer is `optimizer`, or wraps it, or is inside it."""
    own = getattr(base, "optimizer", None)
    known = isinstance(base, LRScheduler) or counts_itself(base)
    if not known or not isinstance(own, Optimizer) or levels(own)[-1] is not levels(optimizer)[-1]:
        # What accelerate's prepare() gives is no scheduler: it steps one, and would step this wrapper.
        allowed = "a torch scheduler of this very optimizer, not yet prepared by accelerate, or timm's, or None"
        raise refusal("base_scheduler", base, allowed)


def counts_itself(base: Any) -> bool:
    """Whether it is stepped as timm's are: to an epoch, or to an update of the weights, that the caller counts."""
    return hasattr(base, "t_in_epochs") and hasattr(base, "step_update")


def position(base: Any) -> int:
    """The step whose rate `base` has set; 0 of timm's, which do not know."""
    if hasattr(base, "last_epoch"):
        return max(int(base.last_epoch), 0)
    members = vars(base).get("_schedulers")  # of a ChainedScheduler, which does not count
    return position(members[0]) if members else 0


def wants_metric(base: Any) -> bool:
    """Whether torch's `base` must be given a metric at each step."""
    inner = vars(base).get("base_scheduler")
    return isinstance(base, ReduceLROnPlateau) or (inner is not None and wants_metric(inner))


def take_over(earlier: Amplifications, kept: list[AmplifiedRates], base: Any) -> None:
    """Puts back the base rates under all wrappers but `kept`, which `base` contains, as if they had not been there.

    `base` may be newer than they are and have read an amplified rate. What it wrote when it was made it writes again,
    from the base rates. What another writer wrote counts as amplified.
    """
    groups = base.optimizer.param_groups
    written = copies(groups)
    if not earlier or kept or written == (amplified := earlier.amplified(groups)):
        earlier.keep_only(kept, groups)
        return
    again = _made(base, groups, amplified)
    absolute = again is None and (counts_itself(base) or getattr(base, "_last_lr", None) == written)
    write(groups, amplified if again == written or absolute else written)
    earlier.keep_only(kept, groups)
    if absolute:
        write(groups, written)
    elif again == written:
        _made(base, groups, copies(groups))


def computed_lr(base: Any, *, stepping: bool, making: bool = False) -> list[Rate]:
    """What `base.get_lr()` gives inside its own step, or while it is made.

    Raises NotImplementedError where it has none.
    """
    if getattr(type(base), "get_lr", LRScheduler.get_lr) is LRScheduler.get_lr:
        raise NotImplementedError(f"{type(base).__name__} has no get_lr(); get_last_lr() gives the rates in force")
    base._get_lr_called_within_step, base._is_initial = stepping, making  # torch's; without the first it warns
    try:
        return list(base.get_lr())
    finally:
        base._get_lr_called_within_step, base._is_initial = False, False


def base_state(base: Any) -> Any:
    """Its state, without NumPy's numbers (a gamma from a linspace, say): torch.load(weights_only=True) refuses them."""
    return _plain(base.state_dict())


def load_base(base: Any, state: Any) -> None:
    """Loads all of `state` or, with a ValueError, nothing of it."""
    name, before = type(base).__name__, copy.deepcopy(base.state_dict())
    if not isinstance(state, Mapping) or ("_schedulers" in state) != ("_schedulers" in before):
        found = f"keys {', '.join(map(str, state))}" if isinstance(state, Mapping) else state
        raise refusal("state_dict['base_scheduler']", found, f"a state of {name}")
    try:
        base.load_state_dict(copy.deepcopy(state))  # copied, since torch's CyclicLR takes things out of what it loads
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


def _made(base: Any, groups: Groups, rates: list[Rate]) -> list[Rate] | None:
    """Writes what `base` writes when it is made while `groups` hold `rates`; None of one that cannot be asked."""
    write(groups, rates)
    try:
        for member in base._schedulers if isinstance(base, ChainedScheduler) else [base]:
            write(groups, computed_lr(member, stepping=True, making=True))
    except NotImplementedError:
        return None
    return copies(groups)
