"""The base rates of an optimizer whose rates are amplified: stored, restored, and saved in the optimizer's state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

Rate = float | Tensor
"""A param group's "lr"; a tensor if the optimizer is captured in a CUDA graph or compiled."""

Groups = Sequence[dict[str, Any]]


class _Product(NamedTuple):
    base: list[Rate]
    factor: float
    amplified: list[Rate]


class AmplifiedRates:
    """How one `RandomAmplifyLR` changed the param groups: from `base` to `amplified` = base * factor.

    Another scheduler may write a group's rate afterwards. The rate found there counts as amplified, so the base rate
    changes by the same proportion. A group that was added later has a base rate.
    """

    def __init__(self) -> None:
        self._now = _Product([], 1.0, [])
        self._next: _Product | None = None
        self.abandoned = False
        """Whether the wrapper was garbage-collected: a rate that it did not write is then a base rate."""

    @property
    def count(self) -> int:
        """How many param groups are amplified."""
        return len(self._now.base)

    def amplify(self, groups: Groups, factor: float) -> None:
        """Replaces the base rates in `groups` by the amplified ones."""
        base = copies(groups)
        write(groups, [rate * factor for rate in base])  # from copies, because groups may share one tensor
        self._now, self._next = _Product(base, factor, copies(groups)), None

    def compute(self, base: list[Rate], factor: float) -> list[Rate]:
        """The rates that `amplify` would write; they become current as soon as the caller has written them."""
        self._next = _Product(base, factor, [rate * factor for rate in base])
        return _cloned(self._next.amplified)

    def restore(self, groups: Groups) -> None:
        """Replaces the amplified rates in `groups` by the base ones."""
        write(groups, self.to_base(copies(groups)))
        self.amplify(groups, 1.0)

    def factor(self, groups: Groups) -> float:
        """The current factor."""
        return self._current(copies(groups)).factor

    def last(self, groups: Groups) -> list[Rate]:
        """The amplified rates as they were written."""
        return _cloned(self._current(copies(groups)).amplified)

    def to_base(self, rates: Sequence[Rate], *, unknown_is_base: bool = False) -> list[Rate]:
        """The base rates of `rates`: the stored ones, bit for bit, unless other code has changed a rate since."""
        now = self._current(rates)
        factor = 1.0 if unknown_is_base or self.abandoned else now.factor
        known = [
            _where(rate, amplified, base, rate / factor)
            for rate, base, amplified in zip(rates, now.base, now.amplified, strict=False)
        ]
        return [*known, *rates[len(known) :]]

    def _current(self, rates: Sequence[Rate]) -> _Product:
        if self._next and all(bool(rate == new) for rate, new in zip(rates, self._next.amplified, strict=False)):
            self._now, self._next = self._next, None
        return self._now


class Amplifications:
    """The amplifications of one optimizer's rates: by one wrapper, or by nested wrappers, the innermost first.

    The optimizer's `state_dict` holds base rates, and `load_state_dict` reads base rates and amplifies them again, so
    that an optimizer without a wrapper can load the checkpoint. Nothing here refers to an optimizer: because of the
    reference cycle, its memory would be freed only by the garbage collector.
    """

    def __init__(self) -> None:
        self._layers: list[AmplifiedRates] = []

    def __bool__(self) -> bool:
        return bool(self._layers)

    def add(self, layer: AmplifiedRates) -> None:
        """Adds `layer` as the outermost one, unless it is present."""
        if layer not in self._layers:
            self._layers.append(layer)

    def amplified(self, groups: Groups) -> list[Rate]:
        """The rates that the outermost wrapper wrote; groups added later have their own."""
        written = self._layers[-1].last(groups)
        return [*written, *copies(groups)[len(written) :]]

    def keep_only(self, kept: Sequence[AmplifiedRates], groups: Groups) -> None:
        """Removes all other layers and restores their base rates."""
        for layer in reversed([each for each in self._layers if each not in kept]):
            layer.restore(groups)
            self._layers.remove(layer)

    def remove(self, layer: AmplifiedRates, groups: Groups) -> None:
        """Removes `layer` and restores its base rates."""
        self.keep_only([each for each in self._layers if each is not layer], groups)

    def abandon(self, layer: AmplifiedRates, optimizer: Optimizer) -> None:
        """Removes the layer of a collected wrapper at the optimizer's next step; rates written by others are kept."""
        if layer in self._layers:
            layer.abandoned = True
            # The hook stays and does nothing at later steps: torch's hooks cannot be removed while they are called.
            optimizer.register_step_pre_hook(lambda optimizer, *_: self.remove(layer, optimizer.param_groups))

    def state_saved(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Hook: saves base rates."""
        rates = copies(optimizer.param_groups)
        for layer in reversed(self._layers):
            rates = layer.to_base(rates)
        for group, rate in zip(state["param_groups"], rates, strict=True):
            group["lr"] = rate

    def state_loaded(self, optimizer: Optimizer) -> None:
        """Hook: the loaded rates are base rates; amplified ones, as release 0.1 saved them, are recognised."""
        groups = optimizer.param_groups
        rates = copies(groups)
        for layer in reversed(self._layers):
            rates = layer.to_base(rates, unknown_is_base=True)
        write(groups, rates)
        for layer in self._layers:
            layer.amplify(groups[: layer.count], layer.factor(groups))


def amplifications(optimizer: Optimizer) -> Amplifications:
    """The amplifications of `optimizer` and those it wraps; created, with their hooks, at the first call."""
    wrapped = levels(optimizer)
    found: Amplifications = vars(wrapped[-1]).setdefault("_amplifications", Amplifications())
    for level in wrapped:
        saving, loading = level.register_state_dict_post_hook, level.register_load_state_dict_post_hook
        _register_once(level, "_optimizer_state_dict_post_hooks", saving, found.state_saved)
        _register_once(level, "_optimizer_load_state_dict_post_hooks", loading, found.state_loaded)
    return found


def levels(optimizer: Optimizer) -> list[Optimizer]:
    """`optimizer` and the optimizers that it wraps, which share its param groups; the outermost first.

    They are found by these groups, because accelerate, Fabric, Lookahead and SAM use different attribute names.
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
    """The rates of the groups; tensors are copied, because they are written in place."""
    return _cloned([group["lr"] for group in groups])


def write(groups: Groups, rates: Sequence[Rate]) -> None:
    """Writes tensors in place, because a captured optimizer reads the same tensor."""
    for group, rate in zip(groups, rates, strict=True):
        if not isinstance(group["lr"], Tensor):
            group["lr"] = float(rate)
        elif isinstance(rate, Tensor):
            group["lr"].copy_(rate)
        else:
            group["lr"].fill_(rate)


def _cloned(rates: Sequence[Rate]) -> list[Rate]:
    """Copies of tensors; other numbers (NumPy's too) as float."""
    return [rate.clone() if isinstance(rate, Tensor) else float(rate) for rate in rates]


def _where(rate: Rate, amplified: Rate, base: Rate, otherwise: Rate) -> Rate:
    if isinstance(rate, Tensor):
        return torch.where(rate == amplified, base, otherwise)  # an `if` would synchronise with the device
    return base if rate == amplified else otherwise


def _register_once(level: Optimizer, kind: str, register: Callable[[Any], Any], hook: Callable[..., None]) -> None:
    """Registers once; an optimizer that only forwards calls may have no hooks."""
    hooks = getattr(level, kind, None)
    if hooks is not None and hook not in hooks.values():
        register(hook)
