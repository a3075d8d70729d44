"""A network and its optimizer on their device: the state that training steps change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ralr_tune.studyfile.optimizers import is_imported
from ralr_tune.tasks.base import Batch, Split, TorchTask
from ralr_tune.training.compiling import Compilation, Network
from ralr_tune.training.memory import micro_batches
from ralr_tune.training.optimizer import make_optimizer
from ralr_tune.training.precision import Precision
from ralr_tune.training.recording import Recorder
from ralr_tune.training.state import OptimizerState, SavedState

if TYPE_CHECKING:
    from ralr_tune.studyfile import Configuration


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
        self._rate = torch.zeros((), device=task.device) if compilation.recorded else None
        self._optimizer = make_optimizer(self._training, self.model.parameters(), self._rate)
        if saved is not None:
            self._restore(saved)
        self._network = Network(self.model, batch_size=self._training.batch_size, compilation=compilation)
        self._recorder = Recorder(self._task.device)

    def fresh(self, model: nn.Module) -> TrainState:
        """An untrained state with this network and the same settings."""
        return TrainState(
            self._task, self._configuration, model, precision=self.precision, compilation=self.compilation
        )

    def step(self, batch: Batch, rate: float, largest: int | None) -> Tensor:
        """One step on the batch at this learning rate; returns its mean loss, a scalar on the device.

        A batch of more than `largest` samples is processed in parts whose gradients add up to the gradient of the
        whole; clipping and the optimizer's step follow once, after the last part. Batch normalisation normalises each
        part separately, so with it the step equals that of the whole batch only in expectation.
        """
        self._set_rate(rate)
        if self.compilation.recorded and largest is None:
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
                loss = self._task.loss(self._network.for_batch(len(part)), part, options=self._options)
            share = loss * (part.weight / batch.weight)
            share.backward()  # type: ignore[no-untyped-call]
            total += share.detach()
        if self._training.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._training.clip_norm)
        self._optimizer.step()
        return total

    def evaluate(self, split: Split, batch_size: int) -> float:
        """The metric over the whole split; NaN if the network's outputs are not finite."""
        return self._task.evaluate(
            self._network.for_evaluation(), split, batch_size=batch_size, autocast=self._autocast
        )

    def optimizer_state(self) -> OptimizerState:
        """The optimizer's state; only an imported one has its param groups too (see state.OptimizerState).

        The configuration contains the param groups of all others.
        """
        state = self._optimizer.state_dict()
        return state if is_imported(self._training.optimizer) else state["state"]

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
        state = dict(saved.optimizer)
        if not is_imported(self._training.optimizer):
            state = {"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]}
        self._optimizer.load_state_dict(state)
        for weight, kept in self._optimizer.state.items():
            kept.update({name: _with_strides_of(weight, value) for name, value in kept.items()})
        if self._rate is not None:  # load_state_dict replaced it by a copy
            self._optimizer.param_groups[0]["lr"] = self._rate

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
