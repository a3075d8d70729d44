"""A network and its optimizer on their device: what the steps of training change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ralr_tune.tasks.base import Batch, Split, TorchTask
from ralr_tune.training.compiling import Compilation, Network
from ralr_tune.training.memory import micro_batches
from ralr_tune.training.optimizer import make_optimizer
from ralr_tune.training.precision import Precision
from ralr_tune.training.recording import Recorder
from ralr_tune.training.state import OptimizerState, State

if TYPE_CHECKING:
    from ralr_tune.studyfile.configuration import TrainingConfig


class Learner:
    """Takes a new network of the task, on the CPU, to the task's device; a `state` replaces its weights."""

    def __init__(
        self,
        task: TorchTask,
        training: TrainingConfig,
        model: nn.Module,
        *,
        precision: Precision,
        compilation: Compilation,
        state: State | None,
    ) -> None:
        """Raises UsageError where optimizer or options do not fit."""
        self._task, self._training = task, training
        self.precision = precision
        self.model = model.to(memory_format=precision.memory_format).to(task.device)
        self.recorded, self.kernels = compilation.recorded, compilation.kernels
        self._rate = torch.zeros((), device=task.device) if self.recorded else None
        self._optimizer = make_optimizer(training, self.model.parameters(), self._rate)
        if state is not None:
            self._restore(state)
        self._network = Network(self.model, batch_size=training.batch_size, compilation=compilation)
        self._recorder = Recorder(self._task.device)

    def step(self, batch: Batch, rate: float, largest: int | None) -> Tensor:
        """One step on the batch at this learning rate; its mean loss, a scalar on the device.

        Where the batch is larger than `largest` samples, it is taken in parts whose gradients add up to the gradient
        of the whole; clipping and the step come once, after the last. Batch normalisation normalises each part by
        itself, so with it the step is that of the whole batch in expectation only.
        """
        self._set_rate(rate)
        if self.recorded and largest is None:
            return self._recorder(self._step, batch)
        return self._step(batch, largest)

    def _set_rate(self, rate: float) -> None:
        if self._rate is not None:
            self._rate.fill_(rate)
            return
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _step(self, batch: Batch, largest: int | None = None) -> Tensor:
        self._optimizer.zero_grad()
        total = torch.zeros((), device=self._task.device)
        for part in micro_batches(batch, largest):
            with self._autocast():
                loss = self._task.loss(
                    self._network.taking(len(part)), part, label_smoothing=self._training.label_smoothing
                )
            share = loss * (len(part) / len(batch))
            share.backward()  # type: ignore[no-untyped-call]
            total += share.detach()
        if self._training.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._training.clip_norm)
        self._optimizer.step()
        return total

    def evaluate(self, split: Split, batch_size: int) -> float:
        """The metric over the whole split; NaN where the network's outputs are not finite."""
        return self._task.evaluate(self._network.evaluating(), split, batch_size=batch_size, autocast=self._autocast)

    def optimizer_state(self) -> OptimizerState:
        """Without the groups' options: the configuration has them."""
        state: OptimizerState = self._optimizer.state_dict()["state"]
        return state

    def optimizer_options(self) -> Mapping[str, Any]:
        """All that the optimizer was told, defaults included."""
        return self._optimizer.param_groups[0]

    def states(self) -> list[Mapping[str, Any]]:
        """What the optimizer keeps of each weight, in the weights' order; empty before the first step."""
        return [self._optimizer.state.get(weight, {}) for weight in self.model.parameters()]

    def take_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """The optimizer goes on from these, one for each weight."""
        for weight, state in zip(self.model.parameters(), states, strict=True):
            self._optimizer.state[weight] = {name: _in_order_of(weight, value) for name, value in state.items()}
        # what was recorded goes on from the old ones, and its gradients hold its memory
        self._recorder = Recorder(self._task.device)
        self._optimizer.zero_grad()

    def _restore(self, state: State) -> None:
        self.model.load_state_dict(state.model)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state.optimizer, "param_groups": groups})
        for weight, kept in self._optimizer.state.items():
            kept.update({name: _in_order_of(weight, value) for name, value in kept.items()})
        if self._rate is not None:  # torch has put a copy there
            self._optimizer.param_groups[0]["lr"] = self._rate

    def _autocast(self) -> AbstractContextManager[object]:
        return self.precision.autocast(self._task.device)


def _in_order_of(weight: Tensor, value: Any) -> Any:
    """What an optimizer keeps of a weight, lying in memory as the weight does.

    torch's fused optimizers take numbers as they lie and never look at strides: with a momentum in another order they
    compute something else, without a word.
    """
    if not isinstance(value, Tensor) or value.shape != weight.shape or value.stride() == weight.stride():
        return value
    return torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)
