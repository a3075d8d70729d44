"""Random amplification around any scheduler of torch: `RandomAmplifyLR`."""

from __future__ import annotations

import copy
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ralr_tune.schedules.amplification import Amplification, Law
from ralr_tune.schedules.checks import check_integer, refusal

Rate = float | Tensor
"""A param group's "lr"; a tensor where the optimizer is captured in a CUDA graph or compiled."""


class RandomAmplifyLR(LRScheduler):
    """Multiplies what `base_scheduler` sets by a random factor, drawn anew at every step: RALR in one's own loop.

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        base = torch.optim.lr_scheduler.MultiStepLR(optimizer, [100, 150])
        scheduler = RandomAmplifyLR(optimizer, base, probability=0.25, lower=1.5, upper=3.0)
        for epoch in range(200):
            train(model, optimizer)
            scheduler.step()  # instead of base.step(); with what base.step() takes (ReduceLROnPlateau: the metric)

    With `probability` the factor is drawn from [lower, upper] by `law` ("uniform" or "loguniform"), else it is 1. All
    param groups get the same factor, each on its own rate. `window` = (first, last) are the steps within which the rate
    may be amplified, half open; None is always. The first rate, before any step, is step 0 and takes part.

    Step i's factor is `Amplification.factor(seed, i)`: no random state, so a run resumed from `state_dict()` goes on
    with the same rates (it holds the base scheduler's state too, and plain numbers for the rest). Load the states of
    scheduler and optimizer in either order.

    `factor` is the factor in force. The base scheduler never meets an amplified rate: torch's are recursive, and the
    amplification would stay. The rate in a param group counts as amplified: whoever else writes there, another
    scheduler say, changes the base rate by the same proportion.

    Raises ValueError for impossible arguments. Put it outermost: around a SequentialLR, not into one.

    Source: doi 10.3390/app12010268; the law in detail is ours, see `amplification`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_scheduler: LRScheduler,
        *,
        probability: float,
        lower: float,
        upper: float,
        law: Law = "uniform",
        window: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        # LRScheduler.__init__ is left out, as in torch's own composite schedulers: the base scheduler has done its
        # work (initial_lr, the watch over the order of calls), and a second first step would go past it.
        if getattr(base_scheduler, "optimizer", None) is not optimizer or not isinstance(base_scheduler, LRScheduler):
            raise refusal("base_scheduler", base_scheduler, "a torch scheduler of this very optimizer")
        check_integer("seed", seed, low=0, below=2**64)
        _check_window(window)
        self.optimizer = optimizer
        self.base_scheduler = base_scheduler
        self.amplification = Amplification(probability, lower, upper, law)
        self.window = window
        self.seed = seed
        self.last_epoch = 0
        self._amplify(optimizer.param_groups)

    def step(self, *args: Any, **kwargs: Any) -> None:
        """One step of the base scheduler, with what it takes, and one draw."""
        self._restore()
        self.base_scheduler.step(*args, **kwargs)
        self.last_epoch += 1
        self._amplify(self.optimizer.param_groups)

    def state_dict(self) -> dict[str, Any]:
        """All that a scheduler over the same kind of base needs to go on; for torch.load(weights_only=True) too."""
        law = self.amplification
        return {
            "base_scheduler": self.base_scheduler.state_dict(),
            "base_lrs": [float(lr) for lr in self._current_own_lrs()],
            "last_epoch": self.last_epoch,
            "amplification": {"probability": law.probability, "lower": law.lower, "upper": law.upper, "law": law.law},
            "window": self.window,
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken, its arguments included; sets the optimizer's rates as they were."""
        groups = self.optimizer.param_groups[: len(state_dict["base_lrs"])]
        if len(groups) < len(state_dict["base_lrs"]):
            raise refusal("state_dict", f"{len(state_dict['base_lrs'])} param groups", f"at most {len(groups)}")
        # A copy, since torch's CyclicLR takes things out of the dict that it loads.
        self.base_scheduler.load_state_dict(copy.deepcopy(state_dict["base_scheduler"]))
        self.amplification = Amplification(**state_dict["amplification"])
        self.window = state_dict["window"]
        self.seed = state_dict["seed"]
        self.last_epoch = state_dict["last_epoch"]
        for group, lr in zip(groups, state_dict["base_lrs"], strict=True):
            _set_lr(group, lr)
        self._amplify(groups)

    @property
    def _schedulers(self) -> NoReturn:
        # SequentialLR asks its members for this when it is made; inside one, it would restart the base and not the
        # amplification, and a loaded state would write to rates that belong to another member.
        raise ValueError(
            "RandomAmplifyLR goes around a SequentialLR, not into one; window = (first, last) spares steps"
        )

    def _amplify(self, groups: list[dict[str, Any]]) -> None:
        """From the base rates, which the groups hold, to the amplified ones."""
        first, last = self.window or (0, self.last_epoch + 1)
        inside = first <= self.last_epoch < last
        self.factor = self.amplification.factor(self.seed, self.last_epoch) if inside else 1.0
        self._own_lrs = _copies(groups)
        for group, own in zip(groups, self._own_lrs, strict=True):  # from the copies: groups may share one tensor
            _set_lr(group, own * self.factor)
        self._last_lr = _copies(groups)

    def _restore(self) -> None:
        """From the amplified rates to the base ones; a group added since then still has its own."""
        for group, lr in zip(self.optimizer.param_groups, self._current_own_lrs(), strict=False):
            _set_lr(group, lr)
        # Whole before the base scheduler steps, so that an exception in there (a metric forgotten) harms nothing.
        self.factor = 1.0
        self._own_lrs = _copies(self.optimizer.param_groups)
        self._last_lr = _copies(self.optimizer.param_groups)

    def _current_own_lrs(self) -> list[Rate]:
        groups = zip(self.optimizer.param_groups, self._own_lrs, self._last_lr, strict=False)
        return [_own_lr(group["lr"], own, amplified, self.factor) for group, own, amplified in groups]


def _own_lr(lr: Rate, own: Rate, amplified: Rate, factor: float) -> Rate:
    """The base rate under `lr`: `own`, to the last bit, unless somebody else has written to it since."""
    if isinstance(lr, Tensor):
        return torch.where(lr == amplified, own, lr / factor)  # no `if`: it would wait for the device
    return own if lr == amplified else lr / factor


def _copies(groups: list[dict[str, Any]]) -> list[Rate]:
    return [group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"] for group in groups]


def _set_lr(group: dict[str, Any], lr: Rate) -> None:
    """In place where the rate is a tensor, since a captured optimizer reads that very tensor."""
    if not isinstance(group["lr"], Tensor):
        group["lr"] = float(lr)
    elif isinstance(lr, Tensor):
        group["lr"].copy_(lr)
    else:
        group["lr"].fill_(lr)


def _check_window(window: tuple[int, int] | None) -> None:
    if window is None:
        return
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise refusal("window", window, "None or two steps, first < last")
    first, last = window
    check_integer("window", last, low=1)
    check_integer("window", first, low=0, below=last)
