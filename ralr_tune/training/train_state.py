"""A network and its optimizer on their device: the state that training steps change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ralr_tune.studyfile.optimizers import is_imported
from ralr_tune.tasks.base import Batch, MeasuringTask, Split, TorchTask
from ralr_tune.training.averaging import WeightAverage
from ralr_tune.training.compiling import Compilation, Network
from ralr_tune.training.groups import Freezer, groups_of
from ralr_tune.training.memory import micro_batches
from ralr_tune.training.optimizer import make_optimizer
from ralr_tune.training.precision import Precision
from ralr_tune.training.recording import Recorder
from ralr_tune.training.state import OptimizerState, SavedAverage, SavedState

if TYPE_CHECKING:
    from ralr_tune.studyfile import Configuration


T = TypeVar("T")


class TrainState:
    """Network and optimizer of one trial. Moves a new network from the CPU to the task's device; a `saved` state
    replaces its weights."""

    def __init__(
        self,
        task: TorchTask,
        configuration: Configuration,
        model: nn.Module,
        *,
        precision: Precision,
        compilation: Compilation,
        saved: SavedState | None = None,
    ) -> None:
        """Raises UsageError if the optimizer or its options do not fit."""
        self._task, self._configuration = task, configuration
        self._training, self._options = configuration.training, configuration.options
        self.precision, self.compilation = precision, compilation
        self.model = model.to(memory_format=precision.memory_format).to(task.device)
        self.groups = groups_of(task, self.model, self._options)
        self._freezer = Freezer(self.model, self.groups)
        self._factors = {id(weight): group.factor for group in self.groups for weight in group.weights}
        self._rates = [torch.zeros((), device=task.device) for _ in self.groups] if compilation.recorded else None
        self._optimizer = self._new_optimizer()
        self.average = WeightAverage(self.model, self._training.ema_decay) if self._training.ema_decay else None
        if saved is not None:
            self._restore(saved)
        self._network = Network(self.model, batch_size=self._training.batch_size, compilation=compilation)
        self._judged_network = self._network
        if self.average is not None:
            self._judged_network = Network(
                self.average.network, batch_size=self._training.batch_size, compilation=compilation
            )
        self._recorder = Recorder(self._task.device)

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and kept: the average of the weights if there is one."""
        return self.model if self.average is None else self.average.network

    def _new_optimizer(self) -> Optimizer:
        parameters: list[dict[str, Any]] = [{"params": list(group.weights)} for group in self.groups]
        if self._rates is None:
            return make_optimizer(self._training, parameters, order=list(self.model.parameters()))
        for group, rate in zip(parameters, self._rates, strict=True):
            group["lr"] = rate
        return make_optimizer(self._training, parameters, self._rates[0])

    def fresh(self, model: nn.Module) -> TrainState:
        """An untrained state with this network and the same settings."""
        return TrainState(
            self._task, self._configuration, model, precision=self.precision, compilation=self.compilation
        )

    def begin(self, epoch: int) -> None:
        """Prepares the network for the steps of an epoch, counted from 0."""
        if self._freezer.train(epoch):
            self._recorder = Recorder(self._task.device)  # a recording would still train the same weights

    def step(self, batch: Batch, rate: float, largest: int | None, weight_decay: float | None = None) -> Tensor:
        """One step on the batch at this learning rate; returns its mean loss, a scalar on the device.

        `weight_decay`: that of this step, which is then not recorded; None: the configuration's.

        A batch of more than `largest` samples is processed in parts whose gradients add up to the gradient of the
        whole; clipping and the optimizer's step follow once, after the last part. Batch normalisation normalises each
        part separately, so with it the step equals that of the whole batch only in expectation.
        """
        self._set_rate(rate)
        for group in self._optimizer.param_groups if weight_decay is not None else ():
            group["weight_decay"] = weight_decay
        recorded = self.compilation.recorded and largest is None and weight_decay is None
        loss = self._recorder(self._step, batch) if recorded else self._step(batch, largest)
        if self.average is not None:  # not recorded: the numbers of its update change from step to step
            self.average.update(self.model)
        return loss

    def _set_rate(self, rate: float) -> None:
        if self._rates is not None:
            for place, group in enumerate(self.groups):
                self._rates[place].fill_(rate * group.factor)
            return
        for param_group in self._optimizer.param_groups:
            param_group["lr"] = rate * self._factor(param_group)

    def _factor(self, param_group: Mapping[str, Any]) -> float:
        """The factor of a group of the optimizer's, which may have split those that it was made with (muon)."""
        return self._factors.get(id(param_group["params"][0]), 1.0) if param_group["params"] else 1.0

    def _step(self, batch: Batch, largest: int | None = None) -> Tensor:
        self._optimizer.zero_grad()
        total = torch.zeros((), device=self._task.device)
        for part in micro_batches(batch, largest):
            with self._autocast():
                loss = self._task.loss(self._network.for_batch(len(part)), part, options=self._options)
            share = loss * (part.weight / batch.weight)
            share.backward()  # type: ignore[no-untyped-call]
            total += share.detach()
        if self._training.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._training.clip_norm)
        self._optimizer.step()
        return total

    def evaluate(self, split: Split, batch_size: int, *, averaged: bool = True) -> float:
        """The metric over the whole split; NaN if the network's outputs are not finite.

        Of the average of the weights if there is one, unless `averaged` is false.
        """
        network = self._judged_network if averaged else self._network
        return self._task.evaluate(network.for_evaluation(), split, batch_size=batch_size, autocast=self._autocast)

    def with_judged(self, work: Callable[..., T]) -> T:
        """`work(network, autocast=...)` with the network that is evaluated, in evaluation mode or not."""
        return work(self._judged_network.for_evaluation(), autocast=self._autocast)

    def saved_average(self) -> SavedAverage | None:
        average = self.average
        return None if average is None else SavedAverage(average.network.state_dict(), average.updates)

    def measure(self, split: Split, batch_size: int) -> Mapping[str, float]:
        """As `evaluate`: the metric and, if the task measures more after every epoch, its further metrics."""
        if not self._task.capabilities.measures:
            return {self._task.metric.name: self.evaluate(split, batch_size)}
        return self.measure_all(split, batch_size)

    def measure_all(self, split: Split, batch_size: int) -> Mapping[str, float]:
        """As `evaluate`: all metrics that the task knows."""
        if not hasattr(self._task, "measure"):
            return {self._task.metric.name: self.evaluate(split, batch_size)}
        return cast(MeasuringTask, self._task).measure(
            self._judged_network.for_evaluation(), split, batch_size=batch_size, autocast=self._autocast
        )

    def optimizer_state(self) -> OptimizerState:
        """The optimizer's state by weight; of an imported one with its param groups (see state.OptimizerState).

        The configuration contains the param groups of all others.
        """
        if is_imported(self._training.optimizer):
            return self._optimizer.state_dict()
        states = self._optimizer.state
        return {index: states[weight] for index, weight in enumerate(self.model.parameters()) if weight in states}

    def optimizer_options(self) -> Mapping[str, Any]:
        """All options of the optimizer, including defaults."""
        return self._optimizer.param_groups[0]

    def optimizer_states(self) -> list[Mapping[str, Any]]:
        """The optimizer's state of each weight, in the order of the weights; empty before the first step."""
        return [self._optimizer.state.get(weight, {}) for weight in self.model.parameters()]

    def load_optimizer_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Makes the optimizer continue from these states, one for each weight."""
        for weight, state in zip(self.model.parameters(), states, strict=True):
            self._optimizer.state[weight] = {name: _with_strides_of(weight, value) for name, value in state.items()}
        # a recording would continue from the old states, and its gradients keep its memory
        self._recorder = Recorder(self._task.device)
        self._optimizer.zero_grad()

    def _restore(self, saved: SavedState) -> None:
        self.model.load_state_dict(saved.model)
        if self.average is not None and saved.average is not None:
            self.average.network.load_state_dict(saved.average.model)
            self.average.updates = saved.average.updates
        self._optimizer.load_state_dict(self._state_dict(saved.optimizer))
        for weight, kept in self._optimizer.state.items():
            kept.update({name: _with_strides_of(weight, value) for name, value in kept.items()})
        for group, rate in zip(self._optimizer.param_groups, self._rates or (), strict=False):
            group["lr"] = rate  # load_state_dict replaced it by a copy

    def _state_dict(self, saved: OptimizerState) -> dict[str, Any]:
        """A saved state of the optimizer as torch loads it."""
        if is_imported(self._training.optimizer):
            return dict(saved)
        # torch counts the weights group by group
        grouped = [id(weight) for group in self._optimizer.param_groups for weight in group["params"]]
        place = [grouped.index(id(weight)) for weight in self.model.parameters()]
        states = {place[index]: state for index, state in saved.items()}
        return {"state": states, "param_groups": self._optimizer.state_dict()["param_groups"]}

    def _autocast(self) -> AbstractContextManager[object]:
        return self.precision.autocast(self._task.device)


def _with_strides_of(weight: Tensor, value: Any) -> Any:
    """An optimizer's state of a weight, with the strides of the weight.

    torch's fused optimizers process the memory in order and ignore strides: with a momentum in another memory format
    they silently compute wrong results.
    """
    if not isinstance(value, Tensor) or value.shape != weight.shape or value.stride() == weight.stride():
        return value
    return torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)
