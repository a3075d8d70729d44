"""The epoch loop of torch tasks."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ralr_tune.errors import TrialError, UsageError
from ralr_tune.logs import warnings_to_log
from ralr_tune.machine.sharing import is_cuda
from ralr_tune.records import EpochRecord
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import Split, TorchTask
from ralr_tune.tasks.trial import TrainingSplit, evaluated_split
from ralr_tune.training.checkpoint import Checkpoints
from ralr_tune.training.compiling import Compilation, choose_compilation
from ralr_tune.training.failures import trial_errors
from ralr_tune.training.memory import MemoryBudget, OutOfMemory, free, too_few_samples_is_oom, within_memory
from ralr_tune.training.precision import Precision, choose_precision
from ralr_tune.training.recording import recording_obstacle, rewriting_obstacle, varying_module
from ralr_tune.training.state import SavedState, StateReader
from ralr_tune.training.train_state import TrainState
from ralr_tune.training.weights import load_weights, save_weights

if TYPE_CHECKING:
    from ralr_tune.studyfile import Configuration
    from ralr_tune.studyfile.configuration import TrainingConfig

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class TrainedEpoch:
    """The result of one epoch."""

    loss: float
    """Mean over the training split, batches weighted."""
    value: float | None
    """The metric after the epoch; NaN if the network's outputs are not finite, None if it was not evaluated."""
    seconds: float
    others: Mapping[str, float] = field(default_factory=dict)
    """Further metrics after the epoch, by name."""


class TorchTrial:
    """A Trial (see tasks.trial) of a TorchTask.

    A resumed trial equals an uninterrupted one, bit for bit on the same kind of CPU with the same number of threads:
    order, augmentation, dropout and learning rate of an epoch derive from (seed, epoch); the rest is in the checkpoint.
    """

    def __init__(
        self,
        task: TorchTask,
        configuration: Configuration,
        *,
        seed: int,
        checkpoint: Path | None = None,
        earlier: Sequence[Path] = (),
        split: TrainingSplit = "train",
    ) -> None:
        """Raises UsageError if network, optimizer or options do not fit, TrialError("oom") if memory runs out."""
        self.task, self.configuration, self.seed, self.split = task, configuration, seed, split
        self.state: TrainState
        self.memory: MemoryBudget
        self.trained_ahead: TrainedEpoch | None = None
        """The next epoch's result, if a fused trainer has already trained it in `state` (see training.slot)."""
        self._largest_batch = 0
        """Number of samples of the epoch's largest batch so far."""
        identity = f"{task.identity}|{configuration.identity(seed)}|{split}"
        self._checkpoints = Checkpoints(identity, checkpoint, earlier)
        with trial_errors():
            batch_size, epochs = configuration.training.batch_size, range(configuration.training.epochs)
            steps = [task.steps(split, batch_size, epoch, seed=seed) for epoch in epochs]
            self.learning_rate = configuration.learning_rate(steps, seed=derive_seed("amplify", seed))
            self.weight_decay = configuration.weight_decay(self.learning_rate)
            saved = self._resume(self._checkpoints.first)
        self.curve: list[EpochRecord] = saved.curve if saved else []
        self.epochs_done = saved.epochs if saved else 0
        """More than the curve has, if the last epochs were not evaluated (see `Capabilities.evaluate_every`)."""
        self._unrecorded_s = saved.unrecorded_s if saved else 0.0
        if saved:
            _log_numeric_differences(saved, self.state.compilation.kernels)

    @property
    def finished(self) -> bool:
        return self.epochs_done >= self._training.epochs

    @property
    def recovered(self) -> str | None:
        return self.memory.recovered(self._training.batch_size)

    def epochs(self) -> Generator[EpochRecord, None, None]:
        while not self.finished:
            with warnings_to_log(), trial_errors():
                record = self._next_record()
            if record is not None:
                self.curve.append(record)
                yield record

    def train_value(self) -> float | None:
        split = self.task.capabilities.gap_split
        return None if split is None else self.evaluate(split)

    def evaluate(self, split: Split) -> float:
        """See `tasks.trial.Trial.evaluate`; NaN if the network's outputs are not finite."""
        return self.in_batches(split, self.state.evaluate)

    def evaluate_all(self, split: Split) -> Mapping[str, float]:
        """As `evaluate`, by name: the study's metric and all others that the task knows."""
        return self.in_batches(split, self.state.measure_all)

    def in_batches(self, split: Split, work: Callable[[Split, int], T]) -> T:
        """What `work` returns for the split and a batch size, which is halved whenever memory runs out.

        Raises TrialError of kind "oom" or "data".
        """
        with warnings_to_log(), trial_errors():
            samples = self.task.size(split)  # reads the data now: smaller batches would not reduce their memory
            default_batch = min(samples, self.task.evaluation_batch)
            while isinstance(
                found := within_memory(
                    lambda: work(split, min(default_batch, self.memory.evaluation or default_batch))
                ),
                OutOfMemory,
            ):
                self.memory = self.memory.less_for_evaluation(default_batch, found.reason)
                logger.warning("evaluating again in batches of %d: %s", self.memory.evaluation, found.reason)
                free()
            return found

    def save_weights(self, path: Path) -> None:
        save_weights(self.state.judged, path)

    def load_weights(self, path: Path) -> None:
        load_weights(self.state.judged, path)

    @property
    def _training(self) -> TrainingConfig:
        return self.configuration.training

    def _resume(
        self, find: Callable[[StateReader], SavedState | None], memory: MemoryBudget | None = None
    ) -> SavedState | None:
        """Builds the network from the seed or, if there is a saved state, from that; restores the state's memory budget
        unless `memory` is given."""
        model = self.task.build_model(self.seed)
        saved = find(self._reader(model))
        self.memory = memory or (saved.memory if saved else MemoryBudget())
        precision = saved.precision if saved else self._chosen_precision(model)
        compilation = self._chosen_compilation(model)
        log_once(f"precision: {precision.reason}; channels last: {precision.channels_last}; {compilation.reason}")
        self.state = TrainState(
            self.task, self.configuration, model, precision=precision, compilation=compilation, saved=saved
        )
        return saved

    def _reader(self, model: nn.Module) -> StateReader:
        every = self.task.capabilities.evaluate_every
        return StateReader(model, self._training, self.task.device, evaluate_every=every)

    def _chosen_precision(self, model: nn.Module) -> Precision:
        return choose_precision(
            self._training.precision,
            self._training.channels_last,
            device=self.task.device,
            input_shape=self.task.input_shape,
            model=None if varying_module(model) else model,  # a call of the user's code could change what follows
            matrix_products=self.task.capabilities.matrix_products,
        )

    def _chosen_compilation(self, model: nn.Module) -> Compilation:
        training, capabilities = self._training, self.task.capabilities
        if training.compile is True and not capabilities.may_record:
            raise UsageError(
                "training.compile = true: the steps of this task vary in operations or shapes and cannot be compiled; "
                'allowed: false, "auto"'
            )
        if is_cuda(self.task.device):
            obstacle = recording_obstacle(capabilities, model, training.optimizer, self.weight_decay.varies)
        else:
            obstacle = rewriting_obstacle(capabilities, model)
        steps = sum(self.learning_rate.steps(epoch) for epoch in range(training.epochs))
        chosen = choose_compilation(training.compile, device=self.task.device, steps=steps, obstacle=obstacle)
        if not chosen.recorded or (self.memory.recorded and self.memory.training is None):
            return chosen
        how = "compiled" if chosen.wanted else "eager"
        return replace(chosen, recorded=False, reason=f"{how}, not recorded: there was not enough memory")

    def _next_record(self) -> EpochRecord | None:
        """Trains and saves one epoch; None if it was not evaluated."""
        epoch = self.epochs_done
        trained, self.trained_ahead = self.trained_ahead or self._train_alone(epoch), None
        self._check_finite(trained, epoch)
        seconds, record = self._unrecorded_s + trained.seconds, None
        if trained.value is not None:
            record = self._record(epoch, trained, trained.value, seconds)
        self._save([*self.curve, record] if record else self.curve, epoch + 1, 0.0 if record else seconds)
        self.epochs_done, self._unrecorded_s = epoch + 1, 0.0 if record else seconds
        return record

    def _check_finite(self, trained: TrainedEpoch, epoch: int) -> None:
        rates = self.learning_rate.rates(epoch)
        if not math.isfinite(trained.loss):
            raise TrialError(
                "diverged", f"training loss {trained.loss} in epoch {epoch + 1}, learning rate {rates.max():g}"
            )
        if trained.value is not None and not math.isfinite(trained.value):
            raise TrialError(
                "diverged", f"outputs are not finite after epoch {epoch + 1}, learning rate {rates.max():g}"
            )

    def _record(self, epoch: int, trained: TrainedEpoch, value: float, seconds: float) -> EpochRecord:
        return EpochRecord(
            epoch=epoch + 1,
            value=value,
            train_loss=trained.loss,
            lr=float(self.learning_rate.rates(epoch)[0]),
            factor=float(self.learning_rate.factors(epoch)[0]),
            seconds=seconds,
            others=trained.others,
        )

    def _train_alone(self, epoch: int) -> TrainedEpoch:
        """One epoch without fusion."""
        began = time.perf_counter()
        loss = self._train(epoch, self.learning_rate.rates(epoch))
        if not self._is_evaluated(epoch):
            return TrainedEpoch(loss, None, time.perf_counter() - began)
        split = evaluated_split(self.split, self.task.capabilities.gap_split)
        measured = dict(self.measure(split, epoch)) if math.isfinite(loss) else {}
        value = measured.pop(self.task.metric.name, math.nan)
        if self.state.average is not None and math.isfinite(loss):
            measured[f"{self.task.metric.name}_without_ema"] = self.evaluate_unaveraged(split, epoch)
        return TrainedEpoch(loss, value, time.perf_counter() - began, measured)

    def measure(self, split: Split, epoch: int) -> Mapping[str, float]:
        """The metric after an epoch (0-based) and further ones, by name."""
        return self.in_batches(split, self.state.measure)

    def evaluate_unaveraged(self, split: Split, epoch: int) -> float:
        """The metric after an epoch (0-based) of the weights themselves, if their average is judged."""
        return self.in_batches(split, partial(self.state.evaluate, averaged=False))

    def _is_evaluated(self, epoch: int) -> bool:
        return (epoch + 1) % self.task.capabilities.evaluate_every == 0 or epoch + 1 == self._training.epochs

    def _train(self, epoch: int, rates: NDArray[np.float64]) -> float:
        """Trains one epoch. If memory runs out, restarts it: without recorded steps if they were recorded, which does
        not change the sums; otherwise in micro-batches of half the size."""
        while isinstance(loss := within_memory(lambda: self._pass(epoch, rates)), OutOfMemory):
            if self.state.compilation.recorded:
                self.memory = replace(self.memory, recorded=False)
                logger.warning("epoch %d again, without recorded steps: %s", epoch + 1, loss.reason)
            else:
                self.memory = self.memory.less_for_training(
                    self._training.batch_size, epoch + 1, loss.reason, largest_batch=self._largest_batch or None
                )
                logger.warning(
                    "epoch %d again in micro-batches of %d: %s", epoch + 1, self.memory.training, loss.reason
                )
            self._reload_last_epoch()
        return loss

    def _pass(self, epoch: int, rates: NDArray[np.float64]) -> float:
        """One pass over the training split; returns the mean loss, batches weighted.

        The loss is summed on the device and read once, at the end: reading it in every step would stall a GPU.
        """
        micro_batch, self._largest_batch = self.memory.training, 0
        self.state.begin(epoch)
        total = torch.zeros((), device=self.task.device)
        weight = 0.0
        with seeded(derive_seed("dropout", self.seed, epoch), self.task.device), too_few_samples_is_oom(micro_batch):
            batches = self.task.batches(
                self.split,
                seed=self.seed,
                epoch=epoch,
                batch_size=self._training.batch_size,
                options=self.configuration.options,
            )
            for batch, rate, decay in zip(batches, rates.tolist(), self._weight_decays(epoch), strict=True):
                self._largest_batch = max(self._largest_batch, len(batch))
                total += self.state.step(batch, rate, micro_batch, decay) * batch.weight
                weight += batch.weight
        return total.item() / weight

    def _weight_decays(self, epoch: int) -> Sequence[float | None]:
        """Of each step; None where all have the configuration's."""
        decay = self.weight_decay
        return decay.values(epoch).tolist() if decay.varies else [None] * self.learning_rate.steps(epoch)

    def _reload_last_epoch(self) -> None:
        """Restores the state after the last epoch and saves it with the new budget, so that a resumed trial starts with
        the smaller micro-batches."""
        del self.state
        free()
        self._resume(self._checkpoints.last, self.memory)
        self._save(self.curve, self.epochs_done, self._unrecorded_s)

    def _save(self, curve: list[EpochRecord], epochs: int, unrecorded_s: float) -> None:
        saved = SavedState(
            model=self.state.model.state_dict(),
            optimizer=self.state.optimizer_state(),
            curve=curve,
            precision=self.state.precision,
            memory=self.memory,
            threads=torch.get_num_threads(),
            torch=str(torch.__version__),
            kernels=self.state.compilation.kernels,
            epochs=epochs,
            unrecorded_s=unrecorded_s,
            average=self.state.saved_average(),
        )
        self._checkpoints.save(saved.encode())


@cache
def log_once(choice: str) -> None:
    """Logs each text once per process: its trials usually make the same choices."""
    logger.info(choice)


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Seeds the global generators of torch, numpy and Python inside the block and restores them afterwards.

    torch's own layers draw from the first; a user's network may draw from any of them.
    """
    devices = [device] if torch.device(device).type == "cuda" else []
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def _log_numeric_differences(saved: SavedState, kernels: bool) -> None:
    """Logs it if a resumed trial may differ in the last bits, which are reproducible only with the same number of
    threads, the same torch and the same kernels."""
    then = _numerics(saved.threads, saved.torch, saved.kernels)
    now = _numerics(torch.get_num_threads(), str(torch.__version__), kernels)
    if then != now:
        logger.info(
            "the checkpoint was trained with %s, continuing with %s: sums may differ in their last bits", then, now
        )


def _numerics(threads: int, version: str, kernels: bool) -> str:
    """What the last bits of sums depend on, for one kind of processor."""
    return f"{threads} threads of torch {version}{', normalisation by the kernel of ralr_tune' if kernels else ''}"
