"""Trains several trials at once as one batched program: K slots, each with its trial's own hyperparameters.

Between two epochs every trial is in the same state as without fusion: it has its own network, optimizer and checkpoint,
so any slot may end, start or continue elsewhere after any epoch. An epoch starts by stacking the networks and ends by
copying them back. If it fails in between, no trial has changed, and each trains the epoch by itself.

Order, augmentation, mixing and dropout (before a linear layer, on a CPU) are the same as without fusion. Sums are not:
grouped convolutions add in another order, so curves diverge slightly, like those of two machines.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import repeat
from typing import cast

import psutil
import torch
from torch import Generator, Tensor

from ralr_tune.machine.sharing import free_on, is_cuda, is_shared
from ralr_tune.seeds import derive_seed
from ralr_tune.tasks.base import Batch, FusedBatch, FusedTask, Split, Task, TorchTask
from ralr_tune.tasks.slots import Slots
from ralr_tune.tasks.trial import Trial, evaluated_split
from ralr_tune.training.fused import FusedNetwork, Stack, Unfusable, check
from ralr_tune.training.fused_optimizer import FusedOptimizer
from ralr_tune.training.loop import TorchTrial
from ralr_tune.training.memory import OutOfMemory, free, within_memory
from ralr_tune.training.recording import WARM_UPS, Recorder
from ralr_tune.training.slot import SlotEpoch
from ralr_tune.training.train_state import TrainState

logger = logging.getLogger(__name__)

MIN_SPEEDUP = 1.25
"""Minimum speedup of the best number of slots over one trial after the other; otherwise the worker trains serially (our
choice)."""

MIN_GAIN = 1.1
"""Minimum speedup of a number of slots over the best smaller number (our choice)."""

SLOT_COUNTS = (2, 4, 8, 16, 32)
"""The numbers of slots that "auto" tries."""

SHARE_OF_WAITING = 1 / 8
"""Maximum number of slots of "auto" as a share of the waiting rows (our choice): the sampler and the pruner learn from
finished trials."""

TIMED_STEPS = 4
"""The fastest step counts: the first warms up, and other programs may interfere. Recorded steps need WARM_UPS more."""

SHARE_OF_MEMORY = 0.5
"""A number of slots is tried only if it is expected to use at most this share of the free memory."""


class FusedTrainer:
    """A SlotTrainer (see tasks.slots) for torch tasks: trials that differ only in numbers train as one batch."""

    def __init__(self, task: Task, slots: Slots) -> None:
        """`slots`: the number of trials at once; for "auto", `settle` chooses it."""
        self._task = cast(FusedTask, task)  # epochs of other tasks have no key
        self.slots = 1 if slots == "auto" else slots
        self._network: FusedNetwork | None = None
        self._slots: _FusedSlots | None = None
        self._kind: object = None
        self._settled, self._prepared = slots != "auto", False

    def settle(self, trial: Trial, waiting: Callable[[], int]) -> None:
        if self._settled:
            return
        self._settled = True
        max_slots = min(SLOT_COUNTS[-1], int(waiting() * SHARE_OF_WAITING))
        if max_slots < 2 or not isinstance(trial, TorchTrial):
            return
        epoch = SlotEpoch(trial)
        if epoch.key() is None or not self._prepare():
            return
        found = within_memory(lambda: self._fastest(epoch, max_slots))
        self.slots = 1 if isinstance(found, OutOfMemory) else found
        free()

    def train(self, trials: Sequence[Trial]) -> None:
        groups: dict[object, list[SlotEpoch]] = defaultdict(list)
        for trial in trials:
            if isinstance(trial, TorchTrial) and (key := SlotEpoch(trial).key()) is not None:
                groups[key].append(SlotEpoch(trial))
        for group in groups.values():
            for first in range(0, len(group), self.slots):
                self._train(group[first : first + self.slots])

    def _train(self, epochs: Sequence[SlotEpoch]) -> None:
        if len(epochs) < 2 or not self._prepare():
            return
        began = time.perf_counter()
        found = within_memory(lambda: self._trained(epochs))
        if isinstance(found, OutOfMemory):
            # fewer at once, still recorded: on an H100 a step per network took 1.14 ms with four recorded slots and
            # 2.00 ms with eight that were not recorded
            self._slots, self.slots = None, len(epochs) // 2
            logger.warning(
                "not enough memory for %d trials at once, from now on %d: %s", len(epochs), self.slots, found.reason
            )
            free()
            return
        seconds = (time.perf_counter() - began) / len(epochs)
        for epoch, loss, value in zip(epochs, *found, strict=True):
            epoch.finish(loss, value, seconds)

    def _trained(self, epochs: Sequence[SlotEpoch]) -> tuple[list[float], list[float]]:
        """The mean loss and the metric of each trial; the trials' states are then at the end of the epoch."""
        states = [epoch.state for epoch in epochs]
        kind = len(epochs), epochs[0].key()
        if self._slots is None or kind != self._kind:
            self._slots = None  # frees its memory for the new one
            self._slots, self._kind = self._fused_slots(epochs, states), kind
        else:
            self._slots.load(epochs, states)
        split = evaluated_split(epochs[0].split, self._task.capabilities.gap_split)
        losses, values = self._slots.train(), self._slots.evaluate(split)
        self._slots.copy_to(states)
        return losses, values

    def _prepare(self) -> bool:
        """Whether this task's network can be fused; checked once, and the reason is logged if not."""
        if self._prepared:
            return self._network is not None
        self._prepared = True
        try:
            with torch.random.fork_rng(devices=[]):
                check([self._task.build_model(seed) for seed in (0, 1, 2)], self._task.input_shape)
                self._network = FusedNetwork(self._task.build_model(0))
        except Unfusable as reason:
            logger.info(
                "one trial at a time: this network cannot be fused: %s%s", reason, _alternative(self._task.device)
            )
            self.slots = 1
            return False
        return True

    def _fastest(self, epoch: SlotEpoch, max_slots: int) -> int:
        """The number of slots beyond which a trial's step gets no shorter; 1 if none is fast enough."""
        serial, best, speeds = self._seconds(epoch, 1), 1, {1: 1.0}
        before = _peak_bytes(self._task.device)
        for slots in SLOT_COUNTS[: max_slots.bit_length() - 1]:
            speeds[slots] = serial / self._seconds(epoch, slots)
            logger.info("%d trials at once: %.2f times the speed of one after the other", slots, speeds[slots])
            if speeds[slots] >= MIN_GAIN * speeds[best]:
                best = slots
            elif slots > 2 or speeds[slots] < 1:  # four may be faster even if two are not
                break
            if 2 * (_peak_bytes(self._task.device) - before) > SHARE_OF_MEMORY * free_on(self._task.device):
                break
        best = best if speeds[best] >= MIN_SPEEDUP else 1
        logger.info("%s", f"{best} trials at once" if best > 1 else "one trial at a time: more at once are no faster")
        return best

    def _seconds(self, epoch: SlotEpoch, slots: int) -> float:
        """Seconds of a step divided by the number of slots, measured on networks that are then discarded."""
        states = [epoch.fresh_state() for _ in range(slots)]
        if slots == 1:
            return _min_seconds(steps_alone(self._task, epoch, states[0]), self._task.device)
        return _min_seconds(self._fused_slots([epoch] * slots, states).steps(), self._task.device) / slots

    def _fused_slots(self, epochs: Sequence[SlotEpoch], states: Sequence[TrainState]) -> _FusedSlots:
        assert self._network is not None
        return _FusedSlots(self._task, self._network, epochs, states)


class _FusedSlots:
    """K trials with the same key, epoch by epoch; `load` replaces them by others."""

    def __init__(
        self, task: FusedTask, network: FusedNetwork, epochs: Sequence[SlotEpoch], states: Sequence[TrainState]
    ) -> None:
        self._task, self._network, self._precision = task, network, states[0].precision
        compilation, self._kernels = states[0].compilation, states[0].compilation.kernels
        self._options = epochs[0].options
        self._stack = Stack([state.model for state in states])
        self._stack.generators = [Generator(task.device) for _ in epochs]
        self._optimizer = FusedOptimizer(self._stack, states, [epoch.training for epoch in epochs])
        self._rate = torch.zeros(len(epochs), 1, device=task.device)
        self._recorder = Recorder(task.device, self._stack.generators) if compilation.recorded else None
        self._begin(epochs)

    def load(self, epochs: Sequence[SlotEpoch], states: Sequence[TrainState]) -> None:
        """Prepares the next epoch of these trials, of the same number and key."""
        self._stack.copy_from([state.model for state in states])
        self._optimizer.copy_from(states, [epoch.training for epoch in epochs])
        self._begin(epochs)

    def _begin(self, epochs: Sequence[SlotEpoch]) -> None:
        slot_epochs = [epoch.seed_and_epoch for epoch in epochs]
        for generator, (seed, epoch) in zip(self._stack.generators, slot_epochs, strict=True):
            generator.manual_seed(derive_seed("dropout", seed, epoch))
        split, batch_size = epochs[0].split, epochs[0].training.batch_size
        self._batches = self._task.fused_batches(
            split, slot_epochs=slot_epochs, batch_size=batch_size, options=self._options
        )
        rates = torch.stack([torch.from_numpy(epoch.rates()) for epoch in epochs], dim=1)
        self._rates = rates.to(self._task.device, torch.float32)[:, :, None]  # (steps, K, 1)
        self._decays: Iterable[Tensor | None] = repeat(None, len(rates))
        if any(epoch.weight_decay_varies for epoch in epochs):
            decays = torch.stack([torch.from_numpy(epoch.weight_decays()) for epoch in epochs], dim=1)
            self._decays = decays.to(self._task.device, torch.float32)[:, :, None]
        self._total, self._weight = torch.zeros(len(epochs), device=self._task.device), 0.0

    def train(self) -> list[float]:
        """Mean loss of each trial, batches weighted; read from the device once, at the end."""
        for _ in self.steps():
            pass
        return (self._total / self._weight).tolist()

    def steps(self) -> Iterator[None]:
        """Makes one step per iteration."""
        for batch, rates, decays in zip(self._batches, self._rates, self._decays, strict=True):
            self._rate.copy_(rates)
            if decays is not None:
                self._optimizer.set_weight_decays(decays)
            losses = self._recorder(self._step, batch) if self._recorder else self._step(batch)
            self._total += losses * batch.weight
            self._weight += batch.weight
            yield

    def _step(self, batch: Batch) -> Tensor:
        """The mean loss of each trial, (K,)."""
        self._stack.weights.grad = None  # may be left from a recording that failed
        with self._autocast():
            outputs = self._outputs(cast(FusedBatch, batch).images)
        losses = self._task.fused_losses(outputs, batch, options=self._options)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step(self._rate)
        return losses.detach()

    def evaluate(self, split: Split) -> list[float]:
        """The metric of each trial over the whole split; NaN if its outputs are not finite."""
        network = partial(self._outputs, training=False)
        return self._task.fused_evaluate(network, split, slots=self._stack.slots, autocast=self._autocast)

    def _outputs(self, images: Tensor, *, training: bool = True) -> Tensor:
        """Images (N, K * C, H, W) to (N, K, classes)."""
        # in channels_last, grouped convolutions are 1.3 to 1.8 times as fast as in the other format
        images = images.contiguous(memory_format=torch.channels_last)
        return self._network(self._stack, images, training=training, kernels=self._kernels)

    def _autocast(self) -> AbstractContextManager[object]:
        return self._precision.autocast(self._task.device)

    def copy_to(self, states: Sequence[TrainState]) -> None:
        self._stack.copy_to([state.model for state in states])
        self._optimizer.copy_to(states)


def steps_alone(task: TorchTask, epoch: SlotEpoch, state: TrainState) -> Iterator[None]:
    """The steps of a trial's next epoch without fusion, on this state."""
    (seed, number), training = epoch.seed_and_epoch, epoch.training
    batches = task.batches(epoch.split, seed=seed, epoch=number, batch_size=training.batch_size, options=epoch.options)
    for batch in batches:
        state.step(batch, training.lr, None)
        yield


def _min_seconds(steps: Iterator[None], device: str) -> float:
    """Seconds of the fastest of a few steps: wall time on a GPU; CPU time on a CPU, since other processes share it."""
    cuda = is_cuda(device)
    clock = time.perf_counter if cuda else time.process_time
    seconds = []
    for _ in range(TIMED_STEPS + WARM_UPS):
        began = clock()
        if next(steps, steps) is steps:
            break
        if cuda:
            torch.cuda.synchronize(device)
        seconds.append(clock() - began)
    return min(seconds)


def _alternative(device: str) -> str:
    """Advice on how to train several trials at once on a GPU that only one process uses; otherwise empty."""
    alone = is_cuda(device) and not is_shared(device)
    return f"; `run --workers N` puts N processes on {device}, each with an equal share of its memory" if alone else ""


def _peak_bytes(device: str) -> int:
    """Peak memory of this process on a GPU, or its current resident memory on the CPU, in bytes."""
    if is_cuda(device):
        return torch.cuda.max_memory_reserved(device)
    return int(psutil.Process().memory_info().rss)
