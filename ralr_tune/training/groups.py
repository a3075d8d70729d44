"""Weights that train at a rate of their own, or from a later epoch on: for example trunk and head of a network."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ralr_tune.tasks.base import TorchTask


@dataclass(frozen=True)
class WeightGroup:
    """Weights with the same rate."""

    weights: tuple[nn.Parameter, ...]
    factor: float = 1.0
    """Multiplies the learning rate of every step."""
    frozen_epochs: int = 0
    """So many epochs at the start leave the weights as they are."""


@runtime_checkable
class GroupedTask(Protocol):
    """What a `TorchTask` may have in addition: not all weights of its networks train in the same way."""

    def weight_groups(self, model: nn.Module, options: Hashable) -> Sequence[WeightGroup]:
        """The weights of `model`, each in one group. Raises UsageError if the options do not fit the network."""


def groups_of(task: TorchTask, model: nn.Module, options: Hashable) -> Sequence[WeightGroup]:
    """The task's groups for this network; a single one without `GroupedTask`."""
    if not isinstance(task, GroupedTask):
        return [WeightGroup(tuple(model.parameters()))]
    groups = task.weight_groups(model, options)
    grouped = [id(weight) for group in groups for weight in group.weights]
    assert sorted(grouped) == sorted(map(id, model.parameters())), "each weight is in one group"
    return groups


def train_as_one(groups: Sequence[WeightGroup]) -> bool:
    """Whether all weights train at the same rate from the first epoch on."""
    return all(group.factor == 1 and group.frozen_epochs == 0 for group in groups)


class Freezer:
    """Freezes the groups of a network for their first epochs.

    Frozen weights have no gradient, so that no optimizer changes them, by weight decay either, and batch normalisation
    in front of them uses its running mean and variance: nothing of the frozen part changes (our choice).
    """

    def __init__(self, model: nn.Module, groups: Sequence[WeightGroup]) -> None:
        self._model = model
        # not those that the network itself excludes from training
        self._trainable = [
            (weight, group.frozen_epochs) for group in groups for weight in group.weights if weight.requires_grad
        ]

    def train(self, epoch: int) -> bool:
        """Puts the network into training mode for an epoch, counted from 0; returns whether other weights train than
        before."""
        self._model.train()
        changed = False
        for weight, frozen_epochs in self._trainable:
            trains = epoch >= frozen_epochs
            changed |= weight.requires_grad != trains
            weight.requires_grad_(trains)
        if any(epoch < frozen_epochs for _, frozen_epochs in self._trainable):
            self._freeze_statistics()
        return changed

    def _freeze_statistics(self) -> None:
        """A normalisation without weights belongs to the smallest module around it that has some."""
        modules = dict(self._model.named_modules())
        for name, module in modules.items():
            if isinstance(module, _NormBase):
                module.train(any(weight.requires_grad for weight in _nearest_weights(name, modules)))


def _nearest_weights(name: str, modules: dict[str, nn.Module]) -> list[nn.Parameter]:
    weights = list(modules[name].parameters())
    return weights if weights or not name else _nearest_weights(name.rpartition(".")[0], modules)
