"""The base rates under the amplified ones of an optimizer: kept, put back, and what the optimizer's state holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

Rate = float | Tensor
"""A param group's "lr"; a tensor where the optimizer is captured in a CUDA graph or compiled."""

Groups = Sequence[dict[str, Any]]


class _Product(NamedTuple):
    base: list[Rate]
    factor: float
    amplified: list[Rate]


class AmplifiedRates:
    """What one `RandomAmplifyLR` did to param groups: each held `base`, and holds `amplified` = base * factor.

    Another scheduler may write to a group in between. A rate that is found there counts as amplified, so that writer
    changes the base rate by the same proportion. A group that was added since has a base rate.
    """

    def __init__(self) -> None:
        self._now = _Product([], 1.0, [])
        self._next: _Product | None = None
        self.abandoned = False
        """Whether the wrapper is gone: then a rate that it did not write is a base rate."""

    @property
    def count(self) -> int:
        """How many param groups are amplified."""
        return len(self._now.base)

    def amplify(self, groups: Groups, factor: float) -> None:
        """From the base rates, which `groups` hold, to the amplified ones."""
        base = copies(groups)
        write(groups, [rate * factor for rate in base])  # from the copies: groups may share one tensor
        self._now, self._next = _Product(base, factor, copies(groups)), None

    def compute(self, base: list[Rate], factor: float) -> list[Rate]:
        """What `amplify` would write; it is in force as soon as the caller has written it."""
        self._next = _Product(base, factor, [rate * factor for rate in base])
        return _cloned(self._next.amplified)

    def restore(self, groups: Groups) -> None:
        """From the amplified rates to the base ones."""
        write(groups, self.under(copies(groups)))
        self.amplify(groups, 1.0)

    def factor(self, groups: Groups) -> float:
        """The factor in force."""
        return self._in_force(copies(groups)).factor

    def last(self, groups: Groups) -> list[Rate]:
        """The amplified rates as they were written."""
        return _cloned(self._in_force(copies(groups)).amplified)

    def under(self, rates: Sequence[Rate], *, unknown_is_base: bool = False) -> list[Rate]:
        """The base rates under `rates`: the kept ones to the last bit, unless another writer was there since."""
        now = self._in_force(rates)
        factor = 1.0 if unknown_is_base or self.abandoned else now.factor
        known = [
            _where(rate, amplified, base, rate / factor)
            for rate, base, amplified in zip(rates, now.base, now.amplified, strict=False)
        ]
        return [*known, *rates[len(known) :]]

    def _in_force(self, rates: Sequence[Rate]) -> _Product:
        if self._next and all(bool(rate == new) for rate, new in zip(rates, self._next.amplified, strict=False)):
            self._now, self._next = self._next, None
        return self._now


class Amplifications:
    """What amplifies the rates of one optimizer: one wrapper, or wrappers around each other, the innermost first.

    The optimizer's `state_dict` holds base rates, and `load_state_dict` takes base rates and amplifies them again, so
    that a checkpoint serves an optimizer without a wrapper. Nothing here refers to an optimizer: that would be a cycle,
    and the optimizer's memory would wait for the garbage collector.
    """

    def __init__(self) -> None:
        self._layers: list[AmplifiedRates] = []

    def __bool__(self) -> bool:
        return bool(self._layers)

    def add(self, layer: AmplifiedRates) -> None:
        """Outermost, unless it is there."""
        if layer not in self._layers:
            self._layers.append(layer)

    def amplified(self, groups: Groups) -> list[Rate]:
        """The rates that the outermost wrapper wrote; those of later groups as they are."""
        written = self._layers[-1].last(groups)
        return [*written, *copies(groups)[len(written) :]]

    def keep_only(self, kept: Sequence[AmplifiedRates], groups: Groups) -> None:
        """Takes all others off and puts the rates under them back."""
        for layer in reversed([each for each in self._layers if each not in kept]):
            layer.restore(groups)
            self._layers.remove(layer)

    def remove(self, layer: AmplifiedRates, groups: Groups) -> None:
        """Takes `layer` off and puts the rates under it back."""
        self.keep_only([each for each in self._layers if each is not layer], groups)

    def abandon(self, layer: AmplifiedRates, optimizer: Optimizer) -> None:
        """For a wrapper that is gone: the same at the optimizer's next step, but what others wrote by then stays."""
        if layer in self._layers:
            layer.abandoned = True
            # It stays, and finds nothing at later steps: torch's hooks cannot be removed while they are called.
            optimizer.register_step_pre_hook(lambda optimizer, *_: self.remove(layer, optimizer.param_groups))

    def state_saved(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Hook: what is saved are base rates."""
        rates = copies(optimizer.param_groups)
        for layer in reversed(self._layers):
            rates = layer.under(rates)
        for group, rate in zip(state["param_groups"], rates, strict=True):
            group["lr"] = rate

    def state_loaded(self, optimizer: Optimizer) -> None:
        """Hook: what was loaded are base rates; those that the first release saved, amplified, are recognised."""
        groups = optimizer.param_groups
        rates = copies(groups)
        for layer in reversed(self._layers):
            rates = layer.under(rates, unknown_is_base=True)
        write(groups, rates)
        for layer in self._layers:
            layer.amplify(groups[: layer.count], layer.factor(groups))


def amplifications(optimizer: Optimizer) -> Amplifications:
    """Those of `optimizer` and of the optimizers that it wraps; made and hooked in at the first call."""
    wrapped = levels(optimizer)
    found: Amplifications = vars(wrapped[-1]).setdefault("_amplifications", Amplifications())
    for level in wrapped:
        saving, loading = level.register_state_dict_post_hook, level.register_load_state_dict_post_hook
        _hook(level, "_optimizer_state_dict_post_hooks", saving, found.state_saved)
        _hook(level, "_optimizer_load_state_dict_post_hooks", loading, found.state_loaded)
    return found


def levels(optimizer: Optimizer) -> list[Optimizer]:
    """`optimizer` and those inside that work on the same param groups, outermost first.

    Found by what they share: accelerate, Fabric, Lookahead and SAM each call the inner one by another name.
    """
    found = [optimizer]
    while inner := [
        each
        for each in vars(found[-1]).values()
        if isinstance(each, Optimizer) and each.param_groups is optimizer.param_groups and each not in found
    ]:
        found.append(inner[0])
    return found


def copies(groups: Groups) -> list[Rate]:
    """The rates that the groups hold; of a tensor a copy, since it is written in place."""
    return _cloned([group["lr"] for group in groups])


def write(groups: Groups, rates: Sequence[Rate]) -> None:
    """In place where the rate is a tensor, since a captured optimizer reads that very tensor."""
    for group, rate in zip(groups, rates, strict=True):
        if not isinstance(group["lr"], Tensor):
            group["lr"] = float(rate)
        elif isinstance(rate, Tensor):
            group["lr"].copy_(rate)
        else:
            group["lr"].fill_(rate)


def _cloned(rates: Sequence[Rate]) -> list[Rate]:
    """Tensors copied; other numbers (numpy's too) as float."""
    return [rate.clone() if isinstance(rate, Tensor) else float(rate) for rate in rates]


def _where(rate: Rate, amplified: Rate, base: Rate, otherwise: Rate) -> Rate:
    if isinstance(rate, Tensor):
        return torch.where(rate == amplified, base, otherwise)  # no `if`: it would wait for the device
    return base if rate == amplified else otherwise


def _hook(level: Optimizer, kind: str, register: Callable[[Any], Any], hook: Callable[..., None]) -> None:
    """Once; an optimizer that only passes calls on may have no hooks of its own."""
    hooks = getattr(level, kind, None)
    if hooks is not None and hook not in hooks.values():
        register(hook)
