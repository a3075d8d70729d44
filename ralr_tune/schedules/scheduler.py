"""Random amplification around any torch scheduler: `RandomAmplifyLR`."""

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
"""A param group's "lr"; a tensor if the optimizer is captured in a CUDA graph or compiled."""


class RandomAmplifyLR(LRScheduler):
    """Multiplies the rate that `base_scheduler` sets by a random factor, drawn at every step: RALR for any loop.

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        base = torch.optim.lr_scheduler.MultiStepLR(optimizer, [100, 150])
        scheduler = RandomAmplifyLR(optimizer, base, probability=0.25, lower=1.5, upper=3.0)
        for epoch in range(200):
            train(model, optimizer)
            scheduler.step()  # instead of base.step(); with the same arguments (ReduceLROnPlateau: the metric)

    With `probability` the factor is drawn from [lower, upper] by `law` ("uniform" or "loguniform"), otherwise it is 1.
    All param groups get the same factor, each on its own rate. Within the steps `window` = (first, last), half open,
    the rate may be amplified; None: always. The initial rate, before any step, is step 0 and may be amplified too.

    The factor of step i is `Amplification.factor(seed, i)`. There is no random state, so a run resumed from
    `state_dict()` continues with the same rates (it includes the base scheduler's state; the rest are plain numbers).
    Load the states of scheduler and optimizer in either order.

    `factor` is the current factor. The base scheduler never sees an amplified rate: torch's schedulers are recursive,
    so the amplification would persist. The rate in a param group is interpreted as amplified: if other code writes it,
    for example another scheduler, the base rate changes by the same proportion.

    Raises ValueError for impossible arguments. Wrap it around a SequentialLR; do not put it into one.

    Source: doi 10.3390/app12010268; the details of the law are our choice, see `amplification`.
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
        # LRScheduler.__init__ is not called, as in torch's own composite schedulers: the base scheduler has already
        # set initial_lr and the check of the call order, and a second initial step would advance it.
        if getattr(base_scheduler, "optimizer", None) is not optimizer or not isinstance(base_scheduler, LRScheduler):
            raise refusal("base_scheduler", base_scheduler, "a torch scheduler of the same optimizer")
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
        """One step of the base scheduler, with its arguments, and one draw."""
        self._restore()
        self.base_scheduler.step(*args, **kwargs)
        self.last_epoch += 1
        self._amplify(self.optimizer.param_groups)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a scheduler over the same kind of base needs to continue; torch.load(weights_only=True) can
        read it."""
        law = self.amplification
        return {
            "base_scheduler": self.base_scheduler.state_dict(),
            "base_lrs": [float(lr) for lr in self._current_base_lrs()],
            "last_epoch": self.last_epoch,
            "amplification": {"probability": law.probability, "lower": law.lower, "upper": law.upper, "law": law.law},
            "window": self.window,
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from `state_dict`, including its arguments, and sets the optimizer's rates as they were."""
        groups = self.optimizer.param_groups[: len(state_dict["base_lrs"])]
        if len(groups) < len(state_dict["base_lrs"]):
            raise refusal("state_dict", f"{len(state_dict['base_lrs'])} param groups", f"at most {len(groups)}")
        # a copy, since torch's CyclicLR removes entries from the dict that it loads
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
        # SequentialLR reads this attribute of its members in its constructor. It would restart the base scheduler but
        # not the amplification, and a loaded state would overwrite rates that belong to another member.
        raise ValueError(
            "RandomAmplifyLR cannot be a member of a SequentialLR: wrap it around the SequentialLR;"
            " window = (first, last) limits the steps that may be amplified"
        )

    def _amplify(self, groups: list[dict[str, Any]]) -> None:
        """Replaces the base rates in the groups by the amplified ones."""
        first, last = self.window or (0, self.last_epoch + 1)
        inside = first <= self.last_epoch < last
        self.factor = self.amplification.factor(self.seed, self.last_epoch) if inside else 1.0
        self._base_lrs = _copies(groups)
        for group, base in zip(groups, self._base_lrs, strict=True):  # from the copies: groups may share one tensor
            _set_lr(group, base * self.factor)
        self._last_lr = _copies(groups)

    def _restore(self) -> None:
        """Replaces the amplified rates by the base ones; a group added since then keeps its rate."""
        for group, lr in zip(self.optimizer.param_groups, self._current_base_lrs(), strict=False):
            _set_lr(group, lr)
        # consistent before the base scheduler steps, so that an exception there (a missing metric) does no harm
        self.factor = 1.0
        self._base_lrs = _copies(self.optimizer.param_groups)
        self._last_lr = _copies(self.optimizer.param_groups)

    def _current_base_lrs(self) -> list[Rate]:
        groups = zip(self.optimizer.param_groups, self._base_lrs, self._last_lr, strict=False)
        return [_base_lr(group["lr"], base, amplified, self.factor) for group, base, amplified in groups]


def _base_lr(lr: Rate, base: Rate, amplified: Rate, factor: float) -> Rate:
    """The base rate of `lr`: `base`, to the last bit, unless other code has changed the rate since."""
    if isinstance(lr, Tensor):
        return torch.where(lr == amplified, base, lr / factor)  # no `if`: it would synchronise with the device
    return base if lr == amplified else lr / factor


def _copies(groups: list[dict[str, Any]]) -> list[Rate]:
    return [group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"] for group in groups]


def _set_lr(group: dict[str, Any], lr: Rate) -> None:
    """Sets a tensor in place, since a captured optimizer reads that tensor."""
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
