"""The epoch loop of torch tasks."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ralr_tune.errors import TrialError
from ralr_tune.logs import warnings_to_log
from ralr_tune.machine.sharing import is_cuda
from ralr_tune.records import EpochRecord
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import FusedTask, Split, TorchTask
from ralr_tune.training import fused_optimizer
from ralr_tune.training.base import WATCHED, TrainingSplit
from ralr_tune.training.checkpoint import Checkpoints
from ralr_tune.training.compiling import Compilation, choose_compilation
from ralr_tune.training.failures import trial_errors
from ralr_tune.training.learner import Learner
from ralr_tune.training.memory import Exhausted, Room, free, single_samples, within_memory
from ralr_tune.training.precision import Precision, choose_precision
from ralr_tune.training.recording import obstacle, unknown
from ralr_tune.training.state import State, StateReader
from ralr_tune.training.weights import load_weights, save_weights

if TYPE_CHECKING:
    from ralr_tune.studyfile import Configuration

logger = logging.getLogger(__name__)


class TorchTrial:
    """A Trial (see training.base) of a TorchTask.

    Resumed equals uninterrupted, bit for bit on a CPU of one kind with the same number of threads: order, augmentation,
    dropout and learning rate of an epoch are drawn anew from (seed, epoch), the rest is in the checkpoint.
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
        """Raises UsageError where network, optimizer or options do not fit, TrialError("oom") for lack of memory."""
        training = configuration.training
        self._task, self.training, self._seed, self.split = task, training, seed, split
        self._ahead: tuple[float, float, float] | None = None
        identity = f"{task.identity}|{configuration.identity(seed)}|{split}"
        self._checkpoints = Checkpoints(identity, checkpoint, earlier)
        self._learner: Learner
        self._room: Room
        with trial_errors():
            state = self._take_up(self._checkpoints.first)
        self.curve: list[EpochRecord] = state.curve if state else []
        if state:
            _note_other_sums(state, self._learner.kernels)
        steps = task.steps(split, training.batch_size)
        self._rate = configuration.learning_rate(steps, seed=derive_seed("amplify", seed))

    @property
    def finished(self) -> bool:
        return len(self.curve) >= self.training.epochs

    @property
    def mended(self) -> str | None:
        return self._room.mended(self.training.batch_size)

    def epochs(self) -> Generator[EpochRecord, None, None]:
        while not self.finished:
            with warnings_to_log(), trial_errors():
                record = self._epoch(len(self.curve))
                self._save([*self.curve, record])
            self.curve.append(record)
            yield record

    def train_value(self) -> float:
        return self.evaluate("probe")

    def evaluate(self, split: Split) -> float:
        """As the contract says; NaN where the network's outputs are not finite."""
        with warnings_to_log(), trial_errors():
            samples = self._task.steps(split, 1)  # reads the data now: what they need does not shrink with the batches
            usual = min(samples, self._task.evaluation_batch)
            while isinstance(value := within_memory(lambda: self._evaluated(split, usual)), Exhausted):
                self._room = self._room.less_for_evaluation(usual, value.reason)
                logger.warning("evaluating again in batches of %d: %s", self._room.evaluation, value.reason)
                free()
            return value

    def save_weights(self, path: Path) -> None:
        save_weights(self._learner.model, path)

    def load_weights(self, path: Path) -> None:
        load_weights(self._learner.model, path)

    # ------------------------------------------------------------ what several trials at once are trained by

    @property
    def learner(self) -> Learner:
        """At the end of the last epoch; whoever trains it says so by `take_epoch`."""
        return self._learner

    @property
    def lane(self) -> tuple[int, int]:
        """Seed and epoch, from 0 on, of what is trained next."""
        return self._seed, len(self.curve)

    def rates(self) -> NDArray[np.float64]:
        """Learning rates of the next epoch, one for each step."""
        return self._rate.rates(len(self.curve))

    def fusion_key(self) -> tuple[object, ...] | None:
        """What trials of this task must agree in to be trained as one; None where this one trains by itself."""
        training, precision = self.training, self._learner.precision
        alone = self._room.training is not None or training.compile is True
        kind = fused_optimizer.kind(training)
        if kind is None or alone or self.finished or not isinstance(self._task, FusedTask):
            return None
        numbers = training.batch_size, training.augment, training.label_smoothing
        return (*kind, *numbers, precision.bfloat16, self._learner.recorded, self._learner.kernels, self.split)

    def new_learner(self) -> Learner:
        """One that has learned nothing, to be timed and thrown away."""
        return self._learner_of(self._task.build_model(self._seed), self._learner.precision, None)

    def take_epoch(self, loss: float, value: float, seconds: float) -> None:
        """The learner has been trained for the next epoch, with this mean loss, and evaluated; `epochs` goes on."""
        self._ahead = loss, value, seconds

    # ------------------------------------------------------------ the trial by itself

    def _take_up(self, find: Callable[[StateReader], State | None], room: Room | None = None) -> State | None:
        """A network as the seed gives it or, where there is a state of it, as that says; None: with its room, too."""
        model = self._task.build_model(self._seed)
        state = find(StateReader(model, self.training, self._task.device))
        self._room = room or (state.room if state else Room())
        precision = state.precision if state else self._chosen_precision()
        self._learner = self._learner_of(model, precision, state)
        return state

    def _learner_of(self, model: nn.Module, precision: Precision, state: State | None) -> Learner:
        compilation = self._chosen_compilation(model)
        _say(f"precision: {precision.reason}; channels last: {precision.channels_last}; {compilation.reason}")
        return Learner(self._task, self.training, model, precision=precision, compilation=compilation, state=state)

    def _chosen_precision(self) -> Precision:
        training = self.training
        return choose_precision(
            training.precision, training.channels_last, device=self._task.device, input_shape=self._task.input_shape
        )

    def _chosen_compilation(self, model: nn.Module) -> Compilation:
        training = self.training
        steps = training.epochs * self._task.steps(self.split, training.batch_size)
        task = type(self._task)
        if is_cuda(self._task.device):
            against = obstacle(model, training.optimizer) or _unknown(task.loss)
        else:  # kernels compute evaluations, too
            against = unknown(model) or _unknown(task.loss) or _unknown(task.evaluate)
        chosen = choose_compilation(training.compile, device=self._task.device, steps=steps, obstacle=against)
        if not chosen.recorded or (self._room.recorded and self._room.training is None):
            return chosen
        how = "compiled" if chosen.wanted else "eager"
        return replace(chosen, recorded=False, reason=f"{how}, not recorded: there was no room for it")

    def _epoch(self, epoch: int) -> EpochRecord:
        rates, factors = self._rate.rates(epoch), self._rate.factors(epoch)
        loss, value, seconds = self._ahead or self._alone(epoch, rates)
        self._ahead = None
        if not math.isfinite(loss):
            raise TrialError("diverged", f"training loss {loss} in epoch {epoch + 1}, learning rate {rates.max():g}")
        if not math.isfinite(value):
            raise TrialError(
                "diverged", f"outputs that are not finite after epoch {epoch + 1}, learning rate {rates.max():g}"
            )
        return EpochRecord(
            epoch=epoch + 1,
            value=value,
            train_loss=loss,
            lr=float(rates[0]),
            factor=float(factors[0]),
            seconds=seconds,
        )

    def _alone(self, epoch: int, rates: NDArray[np.float64]) -> tuple[float, float, float]:
        """Mean loss, metric and seconds of an epoch that this trial trains by itself."""
        began = time.perf_counter()
        loss = self._train(epoch, rates)
        value = self.evaluate(WATCHED[self.split]) if math.isfinite(loss) else math.nan
        return loss, value, time.perf_counter() - began

    def _train(self, epoch: int, rates: NDArray[np.float64]) -> float:
        """One epoch; where memory runs out, again from its start: without the memory of a recorded step, which changes
        no sum, or else in micro-batches of half the size."""
        while isinstance(loss := within_memory(lambda: self._pass(epoch, rates)), Exhausted):
            if self._learner.recorded:
                self._room = replace(self._room, recorded=False)
                logger.warning("epoch %d again, its steps not recorded: %s", epoch + 1, loss.reason)
            else:
                self._room = self._room.less_for_training(self.training.batch_size, epoch + 1, loss.reason)
                logger.warning("epoch %d again in micro-batches of %d: %s", epoch + 1, self._room.training, loss.reason)
            self._go_back()
        return loss

    def _pass(self, epoch: int, rates: NDArray[np.float64]) -> float:
        """One pass over the training split; mean loss over its samples.

        The loss is summed on the device and read once, at the end: reading it in every step would make a GPU wait.
        """
        training, largest = self.training, self._room.training
        self._learner.model.train()
        total = torch.zeros((), device=self._task.device)
        samples = 0
        with _seeded(derive_seed("dropout", self._seed, epoch), self._task.device), single_samples(largest):
            batches = self._task.batches(
                self.split, seed=self._seed, epoch=epoch, batch_size=training.batch_size, augment=training.augment
            )
            for batch, rate in zip(batches, rates.tolist(), strict=True):
                total += self._learner.step(batch, rate, largest) * len(batch)
                samples += len(batch)
        return total.item() / samples

    def _evaluated(self, split: Split, usual: int) -> float:
        return self._learner.evaluate(split, min(usual, self._room.evaluation or usual))

    def _go_back(self) -> None:
        """To the last epoch's end; saved at once, so that whoever resumes begins in the smaller micro-batches, too."""
        del self._learner
        free()
        self._take_up(self._checkpoints.last, self._room)
        self._save(self.curve)

    def _save(self, curve: list[EpochRecord]) -> None:
        state = State(
            model=self._learner.model.state_dict(),
            optimizer=self._learner.optimizer_state(),
            curve=curve,
            precision=self._learner.precision,
            room=self._room,
            threads=torch.get_num_threads(),
            torch=str(torch.__version__),
            kernels=self._learner.kernels,
        )
        self._checkpoints.save(state.encode())


def _unknown(part: Callable[..., object]) -> str | None:
    """Why a network must be taken as it is: somebody's own loss may draw numbers, and it or an evaluation do more with
    a network than to call it; None for ours."""
    ours = part.__module__.partition(".")[0] == __name__.partition(".")[0]
    return None if ours else f"what {part.__qualname__} does may differ from step to step"


@cache
def _say(chosen: str) -> None:
    """Once in a process: its trials choose alike."""
    logger.info(chosen)


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """The global generators of torch, numpy and Python seeded inside, and as they were outside.

    torch's own layers draw from the first; somebody's network may draw from any.
    """
    devices = [device] if torch.device(device).type == "cuda" else []
    outside = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(outside[0])
            np.random.set_state(outside[1])


def _note_other_sums(state: State, kernels: bool) -> None:
    """Bits are promised for the same number of threads, the same torch and the same kernels alone."""
    then = _sums(state.threads, state.torch, state.kernels)
    now = _sums(torch.get_num_threads(), str(torch.__version__), kernels)
    if then != now:
        logger.info(
            "the checkpoint was trained with %s, going on with %s: sums may differ in their last bits", then, now
        )


def _sums(threads: int, version: str, kernels: bool) -> str:
    """What the last bits of sums depend on, on one kind of processor."""
    return f"{threads} threads of torch {version}{', normalisation by our own kernel' if kernels else ''}"
