"""The epoch loop of torch tasks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from ralr_tune.errors import DataError, TrialError
from ralr_tune.records import EpochRecord
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import Batch, Split, TorchTask
from ralr_tune.tasks.quiet import warnings_to_log
from ralr_tune.training import checkpoint as checkpoints
from ralr_tune.training.base import WATCHED, TrainingSplit
from ralr_tune.training.files import replacing
from ralr_tune.training.optimizer import make_optimizer
from ralr_tune.training.precision import choose_precision

if TYPE_CHECKING:
    from ralr_tune.spec import Configuration

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
        split: TrainingSplit = "train",
    ) -> None:
        """Raises UsageError where network, optimizer or options do not fit, TrialError("oom") for lack of memory."""
        training = configuration.training
        self.curve: list[EpochRecord] = []
        self._task, self._training, self._seed = task, training, seed
        self._checkpoint, self._split = checkpoint, split
        self._identity = f"{task.identity}|{configuration.identity(seed)}|{split}"
        self._precision = choose_precision(
            training.precision, training.channels_last, device=task.device, input_shape=task.input_shape
        )
        logger.debug("precision: %s; channels last: %s", self._precision.reason, self._precision.channels_last)
        with _trial_errors():
            self._model = task.build_model(seed)
            self._model.to(memory_format=self._precision.memory_format).to(task.device)
        self._optimizer = make_optimizer(training, self._model.parameters())
        steps = task.steps(split, training.batch_size)
        self._rate = configuration.learning_rate(steps, seed=derive_seed("amplify", seed))
        self._resume()
        if training.compile:
            self._model.compile()

    def epochs(self) -> Generator[EpochRecord, None, None]:
        while len(self.curve) < self._training.epochs:
            with warnings_to_log(), _trial_errors():
                record = self._epoch(len(self.curve))
            self.curve.append(record)
            self._save()
            yield record

    def train_value(self) -> float:
        return self.evaluate("probe")

    def evaluate(self, split: Split) -> float:
        """As the contract says; NaN where the network's outputs are not finite."""
        with warnings_to_log(), _trial_errors():
            return self._task.evaluate(self._model, split, autocast=self._autocast)

    def save_weights(self, path: Path) -> None:
        with replacing(path) as beside:
            safetensors.torch.save_model(self._model, str(beside))

    def load_weights(self, path: Path) -> None:
        try:
            safetensors.torch.load_model(self._model, str(path), device=self._task.device)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise DataError(f"{path}: no weights of this network: {error}") from error

    def _epoch(self, epoch: int) -> EpochRecord:
        began = time.perf_counter()
        rates, factors = self._rate.rates(epoch), self._rate.factors(epoch)
        with _seeded(derive_seed("dropout", self._seed, epoch), self._task.device):
            loss = self._train(epoch, rates)
        if not math.isfinite(loss):
            raise TrialError("diverged", f"training loss {loss} in epoch {epoch + 1}, learning rate {rates.max():g}")
        value = self.evaluate(WATCHED[self._split])
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
            seconds=time.perf_counter() - began,
        )

    def _train(self, epoch: int, rates: NDArray[np.float64]) -> float:
        """One pass over the training split; mean loss over its samples.

        The loss is summed on the device and read once, at the end: reading it in every step would make a GPU wait.
        """
        self._model.train()
        total = torch.zeros((), device=self._task.device)
        samples = 0
        batches = self._task.batches(
            self._split,
            seed=self._seed,
            epoch=epoch,
            batch_size=self._training.batch_size,
            augment=self._training.augment,
        )
        for batch, rate in zip(batches, rates.tolist(), strict=True):
            total += self._step(batch, rate) * len(batch)
            samples += len(batch)
        return total.item() / samples

    def _step(self, batch: Batch, rate: float) -> Tensor:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        with self._autocast():
            loss = self._task.loss(self._model, batch, label_smoothing=self._training.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._training.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._training.clip_norm)
        self._optimizer.step()
        return loss.detach()

    def _autocast(self) -> AbstractContextManager[object]:
        return self._precision.autocast(self._task.device)

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        state = {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "curve": [asdict(record) for record in self.curve],
            "threads": torch.get_num_threads(),
        }
        checkpoints.save(self._checkpoint, self._identity, state)

    def _resume(self) -> None:
        state: dict[str, Any] | None = None
        if self._checkpoint is not None:
            state = checkpoints.load(self._checkpoint, self._identity, device=self._task.device)
        if state is None:
            return
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.curve = [EpochRecord(**record) for record in state["curve"]]
        if state["threads"] != (threads := torch.get_num_threads()):
            logger.info(
                "checkpoint %s was trained with %d threads, going on with %d: sums may differ in their last bits",
                self._checkpoint,
                state["threads"],
                threads,
            )


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """torch's global generators seeded inside, and as they were outside: the caller may be drawing from them."""
    devices = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def _trial_errors() -> Iterator[None]:
    """What training may run into, as TrialError of the fitting kind."""
    try:
        yield
    except DataError as error:
        raise TrialError("data", str(error)) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrialError("oom", _first_line(error)) from error
    except TorchDynamoException as error:
        raise TrialError(
            "bug", f"training.compile = true failed: {_first_line(error)}; train with compile = false"
        ) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # the CPU's allocator has no exception class of its own
            raise
        raise TrialError("oom", _first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
